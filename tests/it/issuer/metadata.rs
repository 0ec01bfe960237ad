//! What clients discover (RFC 8414, OpenID Connect Discovery).

use super::*;
use crate::fixture::browser::plain_client;

on_both_engines! {
    async fn the_issuer_is_the_same_wherever_it_is_named(engine: Engine) {
        let s = Stage::new(engine).await;
        let told = s.get(".well-known/oauth-authorization-server", &[]).await;
        assert_eq!((told.status, told.header("content-type")), (200, "application/json"));
        assert_eq!(told.text("issuer"), ISSUER);
        assert_eq!(told.json, s.get(".well-known/openid-configuration", &[]).await.json);
        let mut server = s.b.admin.authorization_server.clone();
        let grpc = server.get_server_metadata(pb::GetServerMetadataRequest {}).await.unwrap().into_inner();
        assert_eq!(serde_json::from_str::<Value>(&grpc.metadata).unwrap(), told.json);
        assert_eq!(serde_json::from_str::<Value>(&grpc.jwks).unwrap(), s.get("oauth2/jwks", &[]).await.json);
        let back = s.agreed(&s.client.ask()).await;
        assert_eq!(back.location_query("iss"), Some(told.text("issuer")));
        s.finish().await;
    }

    async fn what_is_offered_is_what_there_is(engine: Engine) {
        let s = Stage::new(engine).await;
        let told = s.get(".well-known/oauth-authorization-server", &[]).await.json;
        assert_eq!(told["authorization_endpoint"], json!(s.page("oauth2/authorize")));
        assert_eq!(told["response_types_supported"], json!(["code"]));
        assert_eq!(told["code_challenge_methods_supported"], json!(["S256"]));
        assert_eq!(told["authorization_response_iss_parameter_supported"], json!(true));
        assert_eq!(told["request_parameter_supported"], json!(false));
        let kinds = told["grant_types_supported"].as_array().unwrap();
        assert!(!kinds.contains(&json!("implicit")) && !kinds.contains(&json!("password")));
        for (name, address) in told.as_object().unwrap() {
            let Some(path) = address.as_str().and_then(|it| it.strip_prefix(ISSUER)?.strip_prefix('/')) else { continue };
            let answer = s.get(path, &[]).await;
            assert_ne!(answer.status, 404, "{name}");
        }
        s.finish().await;
    }

    async fn programs_in_browsers_may_ask_where_a_client_proves_itself_and_nowhere_else(engine: Engine) {
        let s = Stage::new(engine).await;
        for path in ["oauth2/token", "oauth2/revoke", "oauth2/userinfo", "oauth2/jwks", ".well-known/openid-configuration"] {
            let asked = plain_client().request("OPTIONS".parse().unwrap(), s.endpoint(path)).send().await.unwrap();
            let allowed = asked.headers()["access-control-allow-origin"].to_str().unwrap();
            assert_eq!((asked.status().as_u16(), allowed), (204, "*"), "{path}");
            assert!(asked.headers().get("access-control-allow-credentials").is_none());
        }
        for url in [s.endpoint("oauth2/introspect"), s.endpoint("oauth2/par"), s.page("oauth2/authorize"), s.page("device")] {
            let asked = plain_client().request("OPTIONS".parse().unwrap(), &url).send().await.unwrap();
            assert_eq!(asked.status(), 405, "{url}");
            assert!(asked.headers().get("access-control-allow-origin").is_none());
        }
        s.finish().await;
    }

    async fn the_endpoints_are_off_unless_they_are_wanted(engine: Engine) {
        let b = Broker::start(engine).await;
        assert!(b.running().issuer_address().is_none());
        // Nor does the browsers' listener have them.
        for path in ["oauth2/token", "oauth2/jwks", ".well-known/openid-configuration"] {
            let url = b.config.web.public_url.join(path).unwrap();
            assert_eq!(Browser::new().get(&url).await.status, 404, "{path}");
        }
        b.finish().await;
    }
}
