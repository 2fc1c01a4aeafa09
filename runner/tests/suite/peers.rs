//! Who may call is asked of the kernel.

use postern_runner::testkit::Gateway;
use tokio::net::UnixStream;

use crate::load::{CONF, good_request};
use crate::process::{Place, wait_for};

async fn connect(place: &Place) -> Gateway {
    Gateway::over(UnixStream::connect(place.socket()).await.unwrap())
}

fn only_users(user: u32) -> String {
    format!("socket: {{allowUsers: [\"{user}\"]}}\n")
}

#[tokio::test]
async fn only_whom_the_list_names_is_served() {
    let own = rustix::process::geteuid().as_raw();
    let place = Place::new();
    place.configure(&only_users(own));
    let runner = place.start();
    let mut gateway = connect(&place).await;
    let token = gateway.prepare("k", CONF).await.unwrap();
    gateway.call(token, &good_request()).await.unwrap();

    // Another list from now on: it holds for connections that are there already, too.
    place.configure(&only_users(own + 1));
    runner.reload();
    assert!(gateway.call(token, &good_request()).await.is_err());
    let mut stranger = connect(&place).await;
    assert!(stranger.prepare("k", CONF).await.is_err());
    let told = format!("user {own} with group");
    wait_for("a line that says who it was", || {
        let log = place.log();
        if log.contains(&told) {
            Ok(())
        } else {
            Err(log)
        }
    });

    // A group's processes may call whoever their user is.
    let group = rustix::process::getegid().as_raw();
    let by_group = format!(
        "socket: {{allowUsers: [\"{}\"], allowGroups: [\"{group}\"]}}\n",
        own + 1
    );
    place.configure(&by_group);
    runner.reload();
    let mut gateway = connect(&place).await;
    let token = gateway.prepare("k", CONF).await.unwrap();
    gateway.call(token, &good_request()).await.unwrap();
}
