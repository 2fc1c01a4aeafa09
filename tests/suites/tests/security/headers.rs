//! Many headers: what the runner cannot see all of it lets through none of.

use anyhow::Result;
use postern_contract::{Code, routes};
use postern_harness::api::Call;
use postern_harness::token::unique;

use crate::rules::{Asked, Bearer};
use crate::walk::{Cell, walk};
use crate::world::world;

#[tokio::test]
async fn as_many_as_can_be_seen_and_more() -> Result<()> {
    let world = world().await;
    let mut cells = Vec::new();
    for route in routes().all() {
        let asked = Asked::rightly(route);
        // A gateway adds three of its own.
        cells.push(Cell::new(world, route, "86 headers", asked).bent(|call: Call| call.filled(86)));
        for many in [87, 95, 150] {
            for (who, bearer) in [("rightly", Bearer::Good), ("nobody", Bearer::Nothing)] {
                let case = format!("{many} headers, {who}");
                let cell = Cell::new(world, route, &case, Asked { bearer, ..asked });
                cells.push(
                    cell.bent(move |call: Call| call.filled(many))
                        .refused(Code::HeadersTooLarge),
                );
            }
        }
        // What names the request is out of sight too: it is refused for that, or has none.
        let unseen = |call: Call| {
            let (call, id) = (call.without("x-correlation-id").filled(150), unique());
            // Twice, as nobody is to expect it back.
            call.add("x-correlation-id", id.as_bytes())
                .add("x-correlation-id", id.as_bytes())
        };
        let code = if route.is_public() {
            Code::HeadersTooLarge
        } else {
            Code::CorrelationIdMissing
        };
        let cell = Cell::new(world, route, "an id beyond the hundredth", asked);
        cells.push(cell.bent(unseen).refused(code));
        // So is the token: nobody looks for another way to let it in.
        let unseen = |call: Call| {
            let token = call.header("authorization").unwrap_or_default();
            let call = call.without("authorization").filled(150);
            call.add("authorization", token.as_bytes())
        };
        let cell = Cell::new(world, route, "a token beyond the hundredth", asked);
        cells.push(cell.bent(unseen).refused(Code::HeadersTooLarge));
    }
    walk(world, cells).await
}
