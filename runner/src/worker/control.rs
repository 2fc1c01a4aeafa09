//! The worker's end of the control socket.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::control::{Message, Sender};

/// Asks the supervisor for tokens and what they stand for.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    stream: Arc<UnixStream>,
    /// Whoever sends holds it: messages are not to mix, and answers come in this order.
    turn: Arc<tokio::sync::Mutex<()>>,
    waiting: Arc<Mutex<VecDeque<oneshot::Sender<Message>>>>,
}

impl Asker {
    pub(crate) fn new(stream: Arc<UnixStream>) -> Self {
        Self {
            stream,
            turn: Arc::default(),
            waiting: Arc::default(),
        }
    }

    /// The token of a `conf`; `None` if the supervisor is gone.
    pub(crate) async fn assign(&self, conf: Bytes) -> Option<u32> {
        match self.ask(Message::Assign(conf)).await? {
            Message::Token(token) => Some(token),
            _ => None,
        }
    }

    /// The `conf` of a token, if the supervisor knows it.
    pub(crate) async fn find(&self, token: u32) -> Option<Bytes> {
        match self.ask(Message::Find(token)).await? {
            Message::Conf(conf) => conf,
            _ => None,
        }
    }

    /// Tells the supervisor something that has no answer.
    pub(crate) async fn tell(&self, message: &Message) -> std::io::Result<()> {
        let _turn = self.turn.lock().await;
        Sender(&self.stream).send(message, None).await
    }

    async fn ask(&self, question: Message) -> Option<Message> {
        let (sender, answer) = oneshot::channel();
        let asker = self.clone();
        // A task of its own: the connection that asks may be dropped, a message half
        // sent or an answer out of order may not.
        let sent = tokio::spawn(async move {
            let _turn = asker.turn.lock().await;
            asker.queue().push_back(sender);
            Sender(&asker.stream).send(&question, None).await
        });
        sent.await.ok()?.ok()?;
        answer.await.ok()
    }

    /// An answer has come: it is the oldest question's.
    pub(crate) fn answered(&self, answer: Message) {
        let asked = self.queue().pop_front();
        if let Some(asked) = asked {
            // Whoever asked may have gone.
            let _ = asked.send(answer);
        }
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<oneshot::Sender<Message>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
