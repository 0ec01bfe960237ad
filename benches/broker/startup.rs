//! Starting on a database that exists, and doing nothing.

use std::time::Duration;

use crate::callers::Caller;
use crate::ground::{Engine, Ground};
use crate::process::Cores;
use crate::provider::LocalProvider;
use crate::report::Section;
use crate::spread::{Spread, mebibytes, show};
use crate::{Outcome, Scale};

const TEXT: &str = "\
`tokenbroker serve` on a database that exists, with 100 connections: from the start of the process to \
the first `grpc.health.v1.Health/Check` that says serving over a connection of its own (tried every half \
millisecond), and resident memory after five idle seconds. The aims are 100 ms and 40 MB (38.1 MiB) on \
SQLite.";

const HEAD: &[&str] = &[
    "Engine",
    "Starts",
    "First answer p50",
    "Largest",
    "Idle memory",
    "Without the binary's pages",
];

pub async fn measure(scale: Scale) -> Outcome<Section> {
    let mut section = Section::new("Start and idle memory", TEXT.to_owned(), HEAD);
    for engine in Engine::ALL {
        let ground = Ground::new(engine).await?;
        let provider = LocalProvider::start()?;
        let server = ground.start("a", Cores::All).await?;
        let mut caller = Caller::new(server.address, &ground.key("admin")?)?;
        let app = caller.register(&provider).await?;
        caller.import(&app, 100).await?;
        server.process.stop()?;

        let mut took = Vec::new();
        let (mut memory, mut own) = (0, 0);
        let starts = scale.of(20, 5);
        for start in 0..starts {
            let server = ground.start("a", Cores::All).await?;
            took.push(server.started_in);
            if start + 1 == starts {
                tokio::time::sleep(Duration::from_secs(5)).await;
                memory = server.process.memory("VmRSS")?;
                own = server.process.memory("RssAnon")?;
            }
            server.process.stop()?;
        }
        let took = Spread::of(took);
        section.row(vec![
            engine.name().to_owned(),
            starts.to_string(),
            show(took.median()),
            show(took.most()),
            mebibytes(memory),
            mebibytes(own),
        ]);
        ground.remove().await?;
    }
    Ok(section)
}
