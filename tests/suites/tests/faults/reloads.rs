//! New configurations of the runner, which clients do not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postern_harness::stack::Stack;
use postern_harness::wait_for;
use rustix::process::Signal;
use tokio::time::sleep;

use super::{Action, SOON, processes};

const CLIENTS: usize = 8;
const RELOADS: usize = 20;
/// Between two requests of a client: a gateway's worker has other work, too.
const PAUSE: Duration = Duration::from_millis(10);
/// Requests of one subject, which has a limit of its own; then another one comes.
const TURN: usize = 40;
/// Requests that are answered after each reload, before the next one.
const BETWEEN: usize = CLIENTS * 4;

/// Reads and mutations through the gateway, over connections that it keeps and over new
/// ones, while the worker is changed under them.
#[tokio::test]
async fn twenty_reloads_of_the_runner_are_not_noticed() -> Result<()> {
    let mut stack = Stack::start().await?;
    let supervisor = processes::supervisor(&mut stack).await?;
    let (answered, over) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let outside = stack.from_outside();
        let mut action = Action::new(&outside).await?;
        let (answered, over) = (Arc::clone(&answered), Arc::clone(&over));
        clients.push(tokio::spawn(async move {
            for round in 0_usize.. {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                if round % TURN == TURN - 1 {
                    action = Action::new(&outside).await?;
                }
                let reply = if round % CLIENTS == number {
                    action = action.again();
                    action.call().await?
                } else {
                    action.client.get("/v1/platform/info").await?
                };
                ensure!((200..300).contains(&reply.status), "{round}: {reply:?}");
                answered.fetch_add(1, Ordering::SeqCst);
                sleep(PAUSE).await;
            }
            Ok(())
        }));
    }
    for reload in 0..RELOADS {
        let before = processes::worker(&mut stack).await?;
        let so_far = answered.load(Ordering::SeqCst);
        processes::signal(supervisor, Signal::HUP)?;
        processes::gone(before).await?;
        wait_for("requests to be answered", SOON, async || {
            let since = answered.load(Ordering::SeqCst) - so_far;
            let ended = clients.iter().filter(|client| client.is_finished()).count();
            // One that met anything but a 2xx has ended, and tells so below.
            ensure!(since >= BETWEEN || ended > 0, "{reload}: {since}");
            Ok(())
        })
        .await?;
    }
    over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await?.context("a client noticed")?;
    }
    ensure!(
        processes::supervisor(&mut stack).await? == supervisor,
        "the supervisor is another one"
    );
    Ok(())
}
