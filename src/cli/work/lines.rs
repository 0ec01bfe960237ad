//! What a command writes to its standard output: a JSON object a line.

use std::io;
use std::mem;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

use crate::model::Captcha;

/// The longest line that is kept.
const LONGEST: usize = 64 * 1024;

/// The longest step and message that the service takes, in characters.
const STEP_MAX: usize = 100;
pub(super) const MESSAGE_MAX: usize = 1000;

/// A line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// As it was written.
    Whole(Vec<u8>),
    /// It was longer than is kept.
    TooLong,
}

/// Lines, as they come.
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    too_long: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader: BufReader::new(reader),
            line: Vec::new(),
            too_long: false,
        }
    }

    /// The next line; none at the end. What was read stays when this is dropped before its end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let chunk = self.reader.fill_buf().await?;
            if chunk.is_empty() {
                let left = self.too_long || !self.line.is_empty();
                return Ok(left.then(|| self.take()));
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            let used = part.len() + usize::from(end.is_some());
            if self.too_long || self.line.len() + part.len() > LONGEST {
                self.too_long = true;
                self.line.clear();
            } else {
                self.line.extend_from_slice(part);
            }
            self.reader.consume(used);
            if end.is_some() {
                return Ok(Some(self.take()));
            }
        }
    }

    fn take(&mut self) -> Line {
        let line = mem::take(&mut self.line);
        if mem::take(&mut self.too_long) {
            return Line::TooLong;
        }
        Line::Whole(line)
    }
}

/// How far a job has come: what is set has changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Progress {
    pub(super) step: Option<String>,
    pub(super) percent: Option<i32>,
    pub(super) message: Option<String>,
    pub(super) checkpoint: Option<Map<String, Value>>,
    pub(super) captcha: Option<Captcha>,
}

impl Progress {
    /// This, and what came later.
    pub(super) fn then(self, later: Self) -> Self {
        Self {
            step: later.step.or(self.step),
            percent: later.percent.or(self.percent),
            message: later.message.or(self.message),
            checkpoint: later.checkpoint.or(self.checkpoint),
            captcha: later.captcha.or(self.captcha),
        }
    }
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) permanent: bool,
    /// How long to wait before the next; the service decides where it is not given.
    pub(super) retry: Option<Duration>,
}

/// How a job is to end.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    Complete {
        result: Option<Map<String, Value>>,
        connection_id: String,
    },
    Fail(Failure),
    Snooze(Duration),
}

/// What a line says.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// How far it has come, how it is to end, or both.
    Told(Option<Progress>, Option<End>),
    /// Something for people.
    Text,
    /// Meant for us, and not as it must be: at this column.
    Faulty(usize),
}

#[derive(Deserialize)]
#[serde(default)]
struct Failed {
    reason: String,
    message: String,
    permanent: bool,
    retry_seconds: Option<f64>,
}

impl Default for Failed {
    fn default() -> Self {
        Self {
            reason: "COMMAND_FAILED".to_owned(),
            message: String::new(),
            permanent: false,
            retry_seconds: None,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    step: Option<String>,
    percent: Option<f64>,
    message: Option<String>,
    checkpoint: Option<Map<String, Value>>,
    captcha: Option<Captcha>,
    result: Option<Map<String, Value>>,
    connection_id: Option<String>,
    fail: Option<Failed>,
    snooze_seconds: Option<f64>,
}

/// Reads a line.
pub(super) fn read(line: &[u8]) -> Said {
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Said::Text;
    }
    let fields: Fields = match serde_json::from_slice(line) {
        Ok(fields) => fields,
        // The error's own text may repeat what the line holds.
        Err(error) if error.is_data() => return Said::Faulty(error.column()),
        Err(_) => return Said::Text,
    };
    let progress = Progress {
        step: fields.step.map(|step| short(&step, STEP_MAX)),
        percent: fields.percent.map(percent),
        message: fields.message.map(|message| short(&message, MESSAGE_MAX)),
        checkpoint: fields.checkpoint,
        captcha: fields.captcha,
    };
    let progress = (progress != Progress::default()).then_some(progress);
    let end = if let Some(failed) = fields.fail {
        let retry = failed.retry_seconds.map(seconds);
        if retry == Some(None) {
            return Said::Faulty(line.len());
        }
        Some(End::Fail(Failure {
            reason: failed.reason,
            message: short(&failed.message, MESSAGE_MAX),
            permanent: failed.permanent,
            retry: retry.flatten(),
        }))
    } else if let Some(delay) = fields.snooze_seconds {
        let Some(delay) = seconds(delay) else {
            return Said::Faulty(line.len());
        };
        Some(End::Snooze(delay))
    } else if fields.result.is_some() || fields.connection_id.is_some() {
        Some(End::Complete {
            result: fields.result,
            connection_id: fields.connection_id.unwrap_or_default(),
        })
    } else {
        None
    };
    match (progress, end) {
        (None, None) => Said::Text,
        (progress, end) => Said::Told(progress, end),
    }
}

/// No longer than that: half of what a command says is better than nothing.
pub(super) fn short(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

fn percent(percent: f64) -> i32 {
    #[allow(clippy::cast_possible_truncation, reason = "it is 0 to 100")]
    let whole = percent.clamp(0.0, 100.0) as i32;
    whole
}

fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(line: &Value) -> Said {
        read(line.to_string().as_bytes())
    }

    #[test]
    fn progress_and_ends_are_read() {
        let Said::Told(Some(progress), None) = said(&json!({
            "step": "login_form", "percent": 40.7, "captcha": "detected", "more": 1,
        })) else {
            panic!("that was progress");
        };
        assert_eq!(progress.percent, Some(40));
        assert_eq!(progress.captcha, Some(Captcha::Detected));
        let later = Progress {
            message: Some("on it".to_owned()),
            percent: Some(50),
            ..Progress::default()
        };
        let both = progress.then(later);
        assert_eq!(
            (both.step.as_deref(), both.percent),
            (Some("login_form"), Some(50))
        );
        let snooze = Said::Told(None, Some(End::Snooze(Duration::from_secs(90))));
        assert_eq!(said(&json!({"snooze_seconds": 90})), snooze);
        let fail = said(&json!({"percent": 10, "fail": {"permanent": true}}));
        let Said::Told(Some(_), Some(End::Fail(failure))) = fail else {
            panic!("that was progress and an end");
        };
        assert_eq!(failure.reason, "COMMAND_FAILED");
        assert!(failure.permanent);
    }

    #[test]
    fn what_is_not_ours_is_text() {
        for line in ["", "hello", "[1]", "{\"level\":\"info\"}", "{broken"] {
            assert_eq!(read(line.as_bytes()), Said::Text, "{line}");
        }
        for line in [
            json!({"percent": "x"}),
            json!({"snooze_seconds": -1}),
            json!({"fail": {"retry_seconds": 1e300}}),
        ] {
            assert!(matches!(said(&line), Said::Faulty(_)), "{line}");
        }
    }

    #[tokio::test]
    async fn lines_are_bounded() {
        let long = "x".repeat(LONGEST + 1);
        let fits = "y".repeat(LONGEST);
        let text = format!("a\n\n{long}\n{fits}\nend");
        let mut lines = Lines::new(text.as_bytes());
        let whole = |text: &str| Some(Line::Whole(text.as_bytes().to_vec()));
        assert_eq!(lines.next().await.unwrap(), whole("a"));
        assert_eq!(lines.next().await.unwrap(), whole(""));
        assert_eq!(lines.next().await.unwrap(), Some(Line::TooLong));
        assert_eq!(lines.next().await.unwrap(), whole(&fits));
        assert_eq!(lines.next().await.unwrap(), whole("end"));
        assert_eq!(lines.next().await.unwrap(), None);
    }
}
