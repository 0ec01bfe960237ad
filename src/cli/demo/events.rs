//! A watcher in the background: it shows events as they come.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Trouble;
use super::calls::Calls;
use super::stage::Stage;
use crate::pb::{TokenEvent, TokenEventType};

/// How long an event that is due may take. It comes within milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// The watcher; it ends with this.
pub(super) struct Watcher {
    heard: watch::Receiver<Vec<(TokenEventType, String)>>,
    task: JoinHandle<()>,
}

impl Watcher {
    /// Begins to watch. Whatever happens after this returns is shown.
    ///
    /// # Errors
    /// The stream is refused, or ends before it begins.
    pub(super) async fn begin(calls: &Calls, stage: &Stage) -> Result<Self, Trouble> {
        let mut following = calls.watch().await?;
        // The first message says from where on it follows.
        if following.next().await.is_none() {
            return Err(ended());
        }
        let stage = stage.clone();
        let (tell, heard) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            while let Some(message) = following.next().await {
                let Some(event) = message.event else {
                    continue;
                };
                // The story's own lines notice when nobody reads any more.
                let _ = stage.event(&said(&event));
                tell.send_modify(|heard| {
                    heard.push((event.r#type(), event.connection_id.clone()));
                });
            }
        });
        Ok(Self { heard, task })
    }

    /// Waits until this has happened to a connection, and was shown.
    ///
    /// # Errors
    /// It does not come.
    pub(super) async fn seen(
        &mut self,
        kind: TokenEventType,
        connection: &str,
    ) -> Result<(), Trouble> {
        let coming = self.heard.wait_for(|heard| {
            let mut heard = heard.iter();
            heard.any(|(other, of)| *other == kind && of == connection)
        });
        match tokio::time::timeout(PATIENCE, coming).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ended()),
            Err(_) => Err(Trouble(format!("the event {} did not come", name(kind)))),
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn said(event: &TokenEvent) -> String {
    let kind = name(event.r#type());
    let TokenEvent {
        id,
        connection_id,
        generation,
        ..
    } = event;
    format!("{id} {kind}  {connection_id}, generation {generation}")
}

fn name(kind: TokenEventType) -> &'static str {
    let name = kind.as_str_name();
    name.strip_prefix("TOKEN_EVENT_TYPE_").unwrap_or(name)
}

fn ended() -> Trouble {
    Trouble("the stream of events has ended".to_owned())
}
