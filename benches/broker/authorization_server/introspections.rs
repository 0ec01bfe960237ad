//! Whether a token is good: asked over gRPC, and by form.

use std::path::PathBuf;

use prost::Message as _;
use tokenbroker::pb;
use url::form_urlencoded;

use super::Stage;
use crate::contestant::{self, Contestant};
use crate::ground::Engine;
use crate::h2load::{Answer, Call, Load};
use crate::process::Cores;
use crate::report::Section;
use crate::spread::{self, grouped, show};
use crate::throughput::{self, FULL};
use crate::{Outcome, Scale, echo};

const TEXT: &str = "\
The introspection of one opaque access token of a person, asked for again and again. *IntrospectToken*: \
over gRPC by API key, answered from memory, beside tonic alone with the same message as its answer, \
8 connections with 32 calls each at once. *POST /oauth2/introspect*: a form over HTTP/1.1 by the client \
itself, 64 connections with a call each; the token is in memory, while the client and its secret are \
looked up in the database each time; beside hyper alone with the same JSON. One core each where there \
are several, alternating rounds, shares of the echo in the same round; PostgreSQL's own processes are \
wherever the system puts them. Each answer's size is checked: that of a token that is not good is \
shorter.";

const HEAD: &[&str] = &[
    "Server",
    "Introspections/s",
    "Of the echo",
    "CPU a call",
    "Full load p50",
    "p99",
];

const INTROSPECT: Call = Call::Rpc("/tokenbroker.v1.AuthorizationServer/IntrospectToken");
const POST: Call = Call::Form("/oauth2/introspect");

/// A connection of HTTP/1.1 carries one call at a time.
const FORMS: (u32, u32) = (64, 1);

/// A server that knows a token, and what it is asked.
struct Asked {
    stage: Stage,
    /// The request, framed.
    message: PathBuf,
    form: PathBuf,
    /// What is answered: the message, encoded.
    told: Vec<u8>,
    told_by_form: Vec<u8>,
}

pub async fn measure(scale: Scale) -> Outcome<Section> {
    let title = "Authorisation server: introspections";
    let mut section = Section::new(title, TEXT.to_owned(), HEAD);
    let (serving, loading) = Cores::apart()?;
    let sqlite = Asked::of(Stage::start(Engine::Sqlite, serving).await?).await?;
    let postgres = Asked::of(Stage::start(Engine::Postgres, serving).await?).await?;

    let file = |name: &str| sqlite.stage.ground.file(name);
    let (message, json, times) = (file("answer.bin"), file("answer.json"), file("times.log"));
    std::fs::write(&message, &sqlite.told)?;
    std::fs::write(&json, &sqlite.told_by_form)?;
    let (messages, messages_at) = echo::start("introspection", &message, serving)?;
    let (forms, forms_at) = echo::start("form", &json, serving)?;

    let calls = scale.of(80_000, 10_000);
    let by_message = sqlite.by_message(loading, calls);
    let by_form = sqlite.by_form(loading, calls);
    // They take several times as long.
    let fewer = calls / 8;
    let mut contestants = vec![
        Contestant::new("echo of the message", &messages, by_message.to(messages_at)),
        Contestant::new(
            "IntrospectToken (SQLite)",
            &sqlite.stage.server.process,
            by_message,
        ),
        Contestant::new(
            "IntrospectToken (PostgreSQL)",
            &postgres.stage.server.process,
            postgres.by_message(loading, calls),
        ),
        Contestant::new("echo of the JSON", &forms, by_form.to(forms_at)),
        Contestant::new(
            "POST /oauth2/introspect (SQLite)",
            &sqlite.stage.server.process,
            Load {
                calls: fewer,
                ..by_form
            },
        ),
        Contestant::new(
            "POST /oauth2/introspect (PostgreSQL)",
            &postgres.stage.server.process,
            postgres.by_form(loading, fewer),
        ),
    ];
    contestant::compete(&mut contestants, scale.of(9, 2))?;

    let mut echoed: &[f64] = &[];
    for one in &contestants {
        // Each echo stands before those that are beside it.
        if one.name.starts_with("echo") {
            echoed = &one.rates;
        }
        let logged = Load {
            log: Some(&times),
            ..one.load.clone()
        };
        let logged = logged.run()?.times.ok_or("h2load logged no times")?;
        section.row(vec![
            one.name.to_owned(),
            grouped(spread::median(&one.rates) as u64),
            throughput::share(&one.rates, echoed),
            format!("{:.1} µs", spread::median(&one.spent)),
            show(logged.median()),
            show(logged.p99()),
        ]);
    }
    drop(contestants);
    for asked in [sqlite, postgres] {
        asked.stage.end().await?;
    }
    Ok(section)
}

impl Asked {
    async fn of(stage: Stage) -> Outcome<Self> {
        let mut server = stage.caller.authorization_server.clone();
        let code = stage.code(0).await?;
        let tokens = server.exchange_token(stage.redeem(code)).await?;
        let request = pb::IntrospectTokenRequest {
            token: tokens.into_inner().access_token,
        };
        let pb::ClientCredentials {
            client_id,
            client_secret,
            ..
        } = &stage.client;
        let text = form_urlencoded::Serializer::new(String::new())
            .append_pair("client_id", client_id)
            .append_pair("client_secret", client_secret)
            .append_pair("token", &request.token)
            .finish();
        let (message, form) = (stage.ground.file("body.bin"), stage.ground.file("body.txt"));
        std::fs::write(&message, throughput::frame(&request)?)?;
        std::fs::write(&form, &text)?;

        let told = server.introspect_token(request).await?.into_inner();
        let posted = stage
            .http
            .post(format!("http://{}/oauth2/introspect", stage.forms))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(text);
        let by_form = posted.send().await?.error_for_status()?.text().await?;
        if !told.active || !by_form.contains("\"active\":true") {
            return Err("the token is not good".into());
        }
        Ok(Self {
            told: told.encode_to_vec(),
            told_by_form: by_form.into_bytes(),
            stage,
            message,
            form,
        })
    }

    fn by_message(&self, cores: Cores, calls: u64) -> Load<'_> {
        Load {
            call: INTROSPECT,
            server: self.stage.server.address,
            calls,
            clients: FULL,
            cores,
            body: &self.message,
            key: Some(&self.stage.key),
            answer: Answer::Bytes(self.told.len() as u64 + 5),
            log: None,
        }
    }

    fn by_form(&self, cores: Cores, calls: u64) -> Load<'_> {
        Load {
            call: POST,
            server: self.stage.forms,
            calls,
            clients: FORMS,
            cores,
            body: &self.form,
            key: None,
            answer: Answer::Bytes(self.told_by_form.len() as u64),
            log: None,
        }
    }
}
