//! An issuer that an attacker runs, or a fault: it answers as it is told to.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use postern_harness::services::AUDIENCE;
use serde_json::{Value, json};

/// What it does when its keys are asked for.
#[derive(Clone, Debug)]
pub(super) enum Manner {
    /// This key set.
    Keys(Vec<Value>),
    /// A status and a text.
    Says(u16, String),
    /// A redirect.
    Sends(String),
    /// A body without an end, as fast as it is taken.
    Endless,
    /// A byte a second.
    Drips,
    /// Nothing, and the connection stays open.
    Silent,
    /// The connection is closed.
    Closes,
}

/// A server of one thread a connection, on a port of its own.
pub(super) struct Liar {
    address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    asked: Arc<AtomicUsize>,
}

impl Liar {
    pub(super) fn publishing(keys: &[Value]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let liar = Self {
            address: listener.local_addr()?,
            manner: Arc::new(Mutex::new(Manner::Keys(keys.to_vec()))),
            asked: Arc::default(),
        };
        let (manner, asked) = (Arc::clone(&liar.manner), Arc::clone(&liar.asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let manner = manner
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                asked.fetch_add(1, Ordering::SeqCst);
                // Whoever asked may go away at any time.
                std::thread::spawn(move || answer(stream, &manner));
            }
        });
        Ok(liar)
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn settings(&self) -> Value {
        json!({
            "issuer": self.url(),
            "jwksUri": format!("{}/certs", self.url()),
            "audiences": [AUDIENCE],
        })
    }

    pub(super) fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap_or_else(PoisonError::into_inner) = manner;
    }

    /// One more key in its set.
    pub(super) fn publish(&self, key: Value) {
        let mut manner = self.manner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Manner::Keys(keys) = &mut *manner {
            keys.push(key);
        }
    }

    /// How often somebody connected.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: TcpStream, manner: &Manner) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
        head.extend(byte);
    }
    let whole = |status: u16, more: &str, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{more}\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
    };
    const OPEN: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
    match manner {
        Manner::Keys(keys) => {
            stream.write_all(whole(200, "", &json!({ "keys": keys }).to_string()).as_bytes())
        }
        Manner::Says(status, body) => stream.write_all(whole(*status, "", body).as_bytes()),
        Manner::Sends(to) => {
            let location = format!("location: {to}\r\n");
            stream.write_all(whole(302, &location, "").as_bytes())
        }
        Manner::Endless => {
            stream.write_all(OPEN.as_bytes())?;
            loop {
                stream.write_all(&[b' '; 65536])?;
            }
        }
        Manner::Drips => {
            stream.write_all(OPEN.as_bytes())?;
            loop {
                stream.write_all(b" ")?;
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        // Until the other side gives up.
        Manner::Silent => stream.read(&mut byte).map(drop),
        Manner::Closes => Ok(()),
    }
}
