use super::*;

/// A client whose every field that can be changed has a value of its own.
fn full() -> pb::Client {
    let mut client = pb::Client {
        name: "name".to_owned(),
        description: "description".to_owned(),
        logo_url: "logo".to_owned(),
        homepage_url: "homepage".to_owned(),
        jwks: "jwks".to_owned(),
        jwks_uri: "jwks_uri".to_owned(),
        redirect_uris: vec!["redirect".to_owned()],
        grant_types: vec![pb::ClientGrantType::DeviceCode.into()],
        response_types: vec![pb::ClientResponseType::Code.into()],
        allowed_scopes: vec!["scope".to_owned()],
        access_token_lifetime: Some(duration(Duration::from_secs(60))),
        refresh_token_lifetime: Some(duration(Duration::from_secs(3_600))),
        require_pkce: Some(false),
        trusted: true,
        rate_limit_per_hour: 7,
        webhook_url: "webhook".to_owned(),
        webhook_events: vec!["event".to_owned()],
        dpop_bound_access_tokens: true,
        require_pushed_authorization_requests: true,
        ..Default::default()
    };
    client.set_auth_method(pb::ClientAuthMethod::ClientSecretPost);
    client.set_access_token_format(pb::AccessTokenFormat::Jwt);
    client
}

fn changed(paths: &[&str]) -> ClientChanges {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let mut fields = Fields::new();
    let mask = prost_types::FieldMask { paths };
    let changes = changes(&mut fields, full(), Some(mask));
    fields.finish().unwrap();
    changes
}

/// What comes of naming each field alone.
#[rustfmt::skip]
fn expected() -> Vec<(&'static str, ClientChanges)> {
    let text = |text: &str| Some(text.to_owned());
    let none = ClientChanges::default;
    vec![
        ("name", ClientChanges { name: text("name"), ..none() }),
        ("description", ClientChanges { description: text("description"), ..none() }),
        ("logo_url", ClientChanges { logo_url: text("logo"), ..none() }),
        ("homepage_url", ClientChanges { homepage_url: text("homepage"), ..none() }),
        ("auth_method", ClientChanges { auth_method: Some(ClientAuthMethod::SecretPost), ..none() }),
        ("jwks", ClientChanges { jwks: text("jwks"), ..none() }),
        ("jwks_uri", ClientChanges { jwks_uri: text("jwks_uri"), ..none() }),
        ("redirect_uris", ClientChanges { redirect_uris: Some(vec!["redirect".to_owned()]), ..none() }),
        ("grant_types", ClientChanges { grant_types: Some(vec![ClientGrantType::DeviceCode]), ..none() }),
        ("response_types", ClientChanges { response_types: Some(vec![ClientResponseType::Code]), ..none() }),
        ("allowed_scopes", ClientChanges { allowed_scopes: Some(vec!["scope".to_owned()]), ..none() }),
        ("access_token_lifetime", ClientChanges { access_token_lifetime: Some(Duration::from_secs(60)), ..none() }),
        ("refresh_token_lifetime", ClientChanges { refresh_token_lifetime: Some(Duration::from_secs(3_600)), ..none() }),
        ("require_pkce", ClientChanges { require_pkce: Some(false), ..none() }),
        ("trusted", ClientChanges { trusted: Some(true), ..none() }),
        ("rate_limit_per_hour", ClientChanges { rate_limit_per_hour: Some(Some(7)), ..none() }),
        ("webhook_url", ClientChanges { webhook_url: text("webhook"), ..none() }),
        ("webhook_events", ClientChanges { webhook_events: Some(vec!["event".to_owned()]), ..none() }),
        ("access_token_format", ClientChanges { access_token_format: Some(TokenFormat::Jwt), ..none() }),
        ("dpop_bound_access_tokens", ClientChanges { dpop_bound: Some(true), ..none() }),
        ("require_pushed_authorization_requests", ClientChanges { require_pushed: Some(true), ..none() }),
    ]
}

#[test]
fn every_mutable_field_is_reached_and_no_other() {
    let expected = expected();
    let names: Vec<_> = expected.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, MUTABLE);
    for (name, change) in expected {
        assert_eq!(changed(&[name]), change, "{name}");
    }
}

#[test]
fn a_star_names_all_and_no_mask_what_is_set() {
    let all = changed(&MUTABLE);
    assert_eq!(changed(&["*"]), all);
    assert_eq!(changed(&[]), all);
    let unset = format!("{all:?}");
    assert!(!unset.contains(": None"), "{unset}");
}

#[test]
fn a_client_is_registered_as_it_was_sent() {
    let client = pb::Client {
        name: "Acme".to_owned(),
        jwks: String::new(),
        jwks_uri: String::new(),
        logo_url: "https://acme.example/logo".to_owned(),
        homepage_url: "https://acme.example/".to_owned(),
        redirect_uris: vec!["https://acme.example/cb".to_owned()],
        grant_types: vec![pb::ClientGrantType::AuthorizationCode.into()],
        webhook_url: "https://acme.example/hook".to_owned(),
        ..full()
    };
    let request = pb::CreateClientRequest {
        client: Some(client.clone()),
        ..Default::default()
    };
    let settings = new_client(request).unwrap().settings;
    assert_eq!(
        (&settings.name, &settings.description),
        (&client.name, &client.description)
    );
    assert_eq!(
        (
            &settings.logo_url,
            &settings.homepage_url,
            &settings.webhook_url
        ),
        (&client.logo_url, &client.homepage_url, &client.webhook_url)
    );
    assert_eq!(settings.access_token_lifetime, Duration::from_secs(60));
    assert_eq!(settings.refresh_token_lifetime, Duration::from_secs(3_600));
    assert_eq!(settings.access_token_format, TokenFormat::Jwt);
    assert!(!settings.require_pkce && settings.trusted);
    assert!(settings.dpop_bound && settings.require_pushed);
}
