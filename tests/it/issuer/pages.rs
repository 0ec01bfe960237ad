//! The pages that people see, and sites that would send, frame or read them.

use super::*;
use crate::fixture::browser::plain_client;

on_both_engines! {
    async fn nothing_of_a_page_is_kept_framed_or_told(engine: Engine) {
        let s = Stage::new(engine).await;
        let browser = Browser::new();
        let begun = s.authorize(&browser, &s.client.ask()).await;
        let sign_in = browser.get(begun.location.as_ref().unwrap()).await;
        let signed_in = s.sign_in(&browser, &begun).await;
        let asked = browser.get(signed_in.location.as_ref().unwrap()).await;
        let back = s.decide(&browser, &asked, "allow").await;
        let over = browser.get(&asked.url).await;
        let device = browser.get(s.page("device")).await;
        for page in [&begun, &sign_in, &signed_in, &asked, &back, &over, &device] {
            assert_headers(page);
        }
        for redirect in [&begun, &signed_in, &back] {
            assert_eq!(redirect.status, 303);
        }
        s.finish().await;
    }

    async fn the_cookie_of_a_request_is_for_the_browser_alone(engine: Engine) {
        let s = Stage::new(engine).await;
        let browser = Browser::new();
        let first = s.asked(&browser, &s.client.ask()).await;
        s.authorize(&browser, &s.client.ask()).await;
        let cookies = browser.cookies();
        assert_eq!(cookies.len(), 2, "a cookie a tab");
        for cookie in cookies {
            assert_eq!(cookie.attributes, ["Path=/", "Max-Age=900", "HttpOnly", "SameSite=Lax"]);
        }
        s.decide(&browser, &first, "deny").await;
        assert_eq!(browser.cookies().len(), 1, "the other tab's");
        s.finish().await;
    }

    async fn the_device_page_can_stay_open_for_an_hour_from_each_visit(engine: Engine) {
        let s = Stage::new(engine).await;
        let browser = Browser::new();
        let first = browser.get(s.page("device")).await;
        let again = browser.get(s.page("device")).await;
        let cookie = first.header("set-cookie").unwrap();
        assert!(cookie.contains("Max-Age=3600"));
        assert_eq!(again.header("set-cookie"), Some(cookie));
        s.finish().await;
    }

    async fn another_site_sends_no_form_in_a_persons_name(engine: Engine) {
        let s = Stage::new(engine).await;
        let browser = Browser::new();
        let asked = s.asked(&browser, &s.client.ask()).await;
        let other = s.asked(&browser, &s.client.ask()).await;
        let right = Form::new(&[("csrf", asked.hidden("csrf")), ("decision", "allow")]);
        for (form, name, value) in [
            (&right, "origin", "https://evil.example"),
            (&right, "sec-fetch-site", "cross-site"),
            (&right, "sec-fetch-site", "same-site"),
            (&right.clone().without("csrf"), "origin", "null"),
            (&right.clone().with("csrf", other.hidden("csrf")), "origin", "null"),
            (&right.clone().and("csrf", asked.hidden("csrf")), "origin", "null"),
        ] {
            let page = browser.post(&asked.url, &form.encoded(), &[(name, value)]).await;
            assert_eq!(page.status, 403, "{name}: {value}");
        }
        assert!(s.grants().await.is_empty());
        let origin = s.page("");
        let page = browser.post(&asked.url, &right.encoded(), &[("origin", origin.trim_end_matches('/')), ("sec-fetch-site", "same-origin")]).await;
        assert_eq!(page.status, 303);
        s.finish().await;
    }

    async fn hostile_words_of_a_client_are_shown_as_text(engine: Engine) {
        let client = pb::Client { name: "<script>alert(1)</script>".to_owned(), description: "\"><img src=x onerror=alert(1)>\u{202e}".to_owned(), ..acme() };
        let s = Stage::of(engine, client).await;
        let browser = Browser::new();
        let begun = s.authorize(&browser, &s.client.ask().with("login_hint", "\"><b>ada")).await;
        let sign_in = browser.get(begun.location.as_ref().unwrap()).await;
        let signed_in = s.sign_in(&browser, &begun).await;
        let asked = browser.get(signed_in.location.unwrap()).await;
        for page in [&sign_in, &asked] {
            for banned in ["<script", "<img", "<b>", "\u{202e}"] {
                assert!(!page.body.contains(banned), "{banned:?}");
            }
            assert!(page.body.contains("alert(1)"));
        }
        s.finish().await;
    }

    async fn the_consent_page_says_who_asks_for_what_in_plain_words(engine: Engine) {
        let words = ("read".to_owned(), "Read your notes".to_owned());
        let s = Stage::with(engine, acme(), |config| config.issuer.scopes.extend([words])).await;
        let asked = s.asked(&Browser::new(), &s.client.ask()).await;
        for words in ["Acme", EMAIL, "Know who you are here", "Read your notes", "acme.example", "It is run by somebody else"] {
            assert!(asked.body.contains(words), "{words}");
        }
        assert!(!asked.body.contains("<script"));
        let policy = asked.header("content-security-policy").unwrap();
        assert!(policy.contains("form-action 'self' https:"), "{policy}");
        s.finish().await;
    }

    async fn a_wrong_password_does_not_tell_whether_there_is_an_account(engine: Engine) {
        let s = Stage::new(engine).await;
        let browser = Browser::new();
        let begun = s.authorize(&browser, &s.client.ask().with("login_hint", EMAIL)).await;
        let url = begun.location.clone().unwrap();
        let page = browser.get(&url).await;
        assert!(page.body.contains(&format!("value=\"{EMAIL}\"")));
        let with = |email: &str, password: &str| Form::new(&[("csrf", page.hidden("csrf")), ("email", email), ("password", password)]).encoded();
        let wrong = browser.post(&url, &with(EMAIL, "another phrase of words"), &[]).await;
        let nobody = browser.post(&url, &with("eve@example.com", "another phrase of words"), &[]).await;
        assert_eq!((wrong.status.as_u16(), nobody.status.as_u16()), (403, 403));
        assert_eq!(wrong.body, nobody.body.replace("eve@example.com", EMAIL));
        assert!(wrong.body.contains("aria-invalid=\"true\""));
        let long = format!("{}@example.com", "e".repeat(242));
        let again = browser.post(&url, &with(&long, "another phrase of words"), &[]).await;
        assert!(again.body.contains(&format!("value=\"{long}\"")));
        assert_eq!(browser.post(&url, &with(EMAIL, ""), &[]).await.status, 400);
        assert_eq!(s.sign_in(&browser, &begun).await.status, 303);
        s.finish().await;
    }

    async fn guessed_passwords_have_to_wait(engine: Engine) {
        let s = Stage::with(engine, acme(), |config| config.passwords.free_failures = 1).await;
        let browser = Browser::new();
        let begun = s.authorize(&browser, &s.client.ask()).await;
        let url = begun.location.unwrap();
        let page = browser.get(&url).await;
        let guess = Form::new(&[("csrf", page.hidden("csrf")), ("email", EMAIL), ("password", "another phrase of words")]).encoded();
        let mut last = browser.post(&url, &guess, &[]).await;
        for _ in 0..5 {
            last = browser.post(&url, &guess, &[]).await;
        }
        assert_eq!(last.status, 429);
        assert!(last.header("retry-after").is_some() && !last.body.contains("aria-invalid=\"true\""));
        s.finish().await;
    }

    async fn who_only_looks_ahead_begins_nothing(engine: Engine) {
        let s = Stage::new(engine).await;
        let url = format!("{}?{}", s.page("oauth2/authorize"), s.client.ask().encoded());
        let ahead = plain_client().get(&url).header("sec-purpose", "prefetch").send().await.unwrap();
        assert_eq!((ahead.status().as_u16(), ahead.headers().get("set-cookie")), (503, None));
        let head = plain_client().head(&url).send().await.unwrap();
        assert_eq!((head.status().as_u16(), head.headers().get("set-cookie")), (200, None));
        let count = "SELECT CAST(count(*) AS text) AS line FROM authorization_requests";
        assert_eq!(s.b.ground.lines(count).await, ["0"]);
        // A client's site may also send the request as a form.
        let page = Browser::new().post(s.page("oauth2/authorize"), &s.client.ask().encoded(), &[("origin", "https://acme.example")]).await;
        assert_eq!(page.status, 303);
        assert_eq!(s.b.ground.lines(count).await, ["1"]);
        s.finish().await;
    }
}
