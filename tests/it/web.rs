//! The browser listener as a web server: addresses, methods, headers, cookies.

use std::sync::Arc;
use std::time::Duration;

use tokenbroker::pb::AuthorizationState as State;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::callbacks::{Consented, authorization, consent, host, with};
use crate::fixture::browser::{Browser, Page, plain_client};
use crate::fixture::*;
use crate::on_both_engines;

fn address(b: &Broker, path: &str) -> String {
    format!("http://{}/{path}", host(b))
}

/// What every answer carries, whatever it is.
pub fn assert_headers(page: &Page) {
    for (name, value) in [
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(page.header(name), Some(value), "{}", page.url.path());
    }
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    assert_eq!(page.header("access-control-allow-origin"), None);
}

/// Connects, says this and nothing more, and reads what comes until the server hangs up.
async fn said(b: &Broker, words: &str) -> String {
    let mut tcp = TcpStream::connect(host(b)).await.unwrap();
    tcp.write_all(words.as_bytes()).await.unwrap();
    let mut came = Vec::new();
    // It may be reset with words of ours unread.
    let _ = soon("the end of the connection", tcp.read_to_end(&mut came)).await;
    String::from_utf8(came).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_that_says_nothing_is_hung_up_on() {
    let b = Broker::start_with(Engine::Sqlite, |config| {
        config.web.idle_timeout = Duration::from_millis(200);
    })
    .await;
    assert_eq!(said(&b, "").await, "");
    assert!(
        !said(&b, "GET / HTTP/1.1\r\nhost: here")
            .await
            .contains("404")
    );
    let answered = said(&b, "GET / HTTP/1.1\r\nhost: here\r\n\r\n").await;
    assert!(answered.starts_with("HTTP/1.1 404"), "{answered}");
    b.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_browsers_are_kept_than_configured() {
    let b = Broker::start_with(Engine::Sqlite, |config| config.web.max_connections = 1).await;
    let first = TcpStream::connect(host(&b)).await.unwrap();
    assert_eq!(said(&b, "GET / HTTP/1.1\r\nhost: here\r\n\r\n").await, "");
    drop(first);
    let once = "GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    eventually("there is a place again", || async {
        said(&b, once).await.contains("404")
    })
    .await;
    b.finish().await;
}

on_both_engines! {
    async fn an_unknown_address_is_nothing(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let link = b.authorize(&app, "owner-1").await.connect_url;
        let guess = "A".repeat(43);
        for path in ["", "connect", "connect/", "connect/x", &format!("connect/{guess}"), "callback/", "metrics"] {
            let page = Browser::new().get(address(&b, path)).await;
            assert_eq!(page.status, 404, "{path}");
            assert_headers(&page);
        }
        let cut = &link[..link.len() - 1];
        assert_eq!(Browser::new().get(cut).await.status, 404);
        b.finish().await;
    }

    async fn only_get_and_head_are_answered(engine: Engine) {
        let c = Consented::start(engine).await;
        for url in [c.connect_url.clone(), c.callback.to_string()] {
            for method in ["POST", "PUT", "OPTIONS", "DELETE"] {
                let method = method.parse().unwrap();
                let answer = plain_client().request(method, &url).send().await.unwrap();
                assert_eq!(answer.status(), 405);
                assert_eq!(answer.headers()["allow"], "GET, HEAD");
            }
            assert_eq!(plain_client().head(&url).send().await.unwrap().status(), 200);
        }
        c.unharmed().await;
    }

    async fn every_answer_is_kept_to_itself(engine: Engine) {
        let c = Consented::start(engine).await;
        assert_headers(&c.browser.get(&c.connect_url).await);
        let forged = with(&c.callback, "state", Some("forged"));
        assert_headers(&c.refused(&c.browser, &forged, 400).await);
        assert_headers(&c.browser.get(&c.callback).await);
        assert_headers(&c.browser.get(&c.connect_url).await);
        c.b.finish().await;
    }

    async fn nobody_waits_for_ever_and_what_was_begun_goes_on(engine: Engine) {
        let mut c = Consented::start(engine).await;
        c.b.stop().await;
        let mut config = c.b.config.clone();
        config.web.request_timeout = Duration::from_millis(50);
        c.b = Broker::on(Arc::clone(&c.b.ground), config, c.b.clock.clone(), c.b.provider.clone()).await;
        let held = c.b.provider.hold_token_answers();
        let page = c.browser.get(&c.callback).await;
        assert_eq!((page.status.as_u16(), page.header("cache-control")), (503, Some("no-store")));
        assert!(page.header("retry-after").is_some());
        held.release();
        eventually("the code is redeemed", || async {
            authorization(&c.b, &c.id).await.state() == State::AwaitingConfirmation
        })
        .await;
        assert_eq!(c.b.provider.exchanges(), 1);
        c.b.finish().await;
    }

    async fn the_cookie_is_for_this_visit_and_nothing_else(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let link = b.authorize(&app, "owner-1").await.connect_url;
        let browser = Browser::new();
        let first = consent(&b, &browser, &link).await;
        let second = consent(&b, &browser, &link).await;
        let cookies = browser.cookies();
        assert_eq!(cookies.len(), 2, "a cookie a tab");
        for cookie in cookies {
            assert_eq!(cookie.attributes, ["Path=/", "Max-Age=600", "HttpOnly", "SameSite=Lax"]);
        }
        assert_eq!(browser.get(&second).await.status, 303);
        assert_eq!(browser.cookies().len(), 1, "the other tab's");
        assert_eq!(browser.get(&first).await.status, 409);
        b.finish().await;
    }

    async fn behind_https_the_cookie_is_the_hosts_own(engine: Engine) {
        let b = Broker::start_with(engine, |config| {
            config.web.public_url = "https://broker.example/".parse().unwrap();
        }).await;
        let app = b.app().await;
        assert!(app.callback_url.starts_with("https://broker.example/callback/app_"));
        let link = b.authorize(&app, "owner-1").await.connect_url;
        let path = link.strip_prefix("https://broker.example/").unwrap();
        let page = Browser::new().get(address(&b, path)).await;
        let cookie = page.header("set-cookie").unwrap();
        assert!(cookie.starts_with("__Host-") && cookie.ends_with("; Secure"));
        b.finish().await;
    }
}
