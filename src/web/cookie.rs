//! The cookie that ties a browser to its visit. Each visit has one of its own, so that two tabs
//! don't get into each other's way.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use url::Url;

/// How cookies are written at this address.
#[derive(Clone, Debug)]
pub(super) struct Cookies {
    prefix: &'static str,
    secure: &'static str,
    path: String,
}

impl Cookies {
    /// For the address where browsers reach us; its path ends in a slash.
    pub(super) fn of(public_url: &Url) -> Self {
        let secure = public_url.scheme() == "https";
        let path = public_url.path().to_owned();
        // RFC 6265bis section 4.1.3: `__Host-` demands Secure and the whole host, so that no
        // sibling domain can plant a cookie of this name; `__Secure-` demands the one only.
        let prefix = match (secure, path.as_str()) {
            (true, "/") => "__Host-",
            (true, _) => "__Secure-",
            (false, _) => "",
        };
        Self {
            prefix,
            secure: if secure { "; Secure" } else { "" },
            path,
        }
    }

    /// `Set-Cookie` for a visit.
    pub(super) fn set(&self, key: &str, value: &str, max_age: Duration) -> String {
        self.written(key, value, max_age.as_secs())
    }

    /// `Set-Cookie` that takes it back.
    pub(super) fn clear(&self, key: &str) -> String {
        self.written(key, "", 0)
    }

    fn written(&self, key: &str, value: &str, max_age: u64) -> String {
        let name = self.name(key);
        let Self { secure, path, .. } = self;
        format!("{name}={value}; Path={path}; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}")
    }

    /// The value that a browser brought for a visit.
    pub(super) fn find<'a>(&self, headers: &'a HeaderMap, key: &str) -> Option<&'a str> {
        let name = self.name(key);
        headers
            .get_all(header::COOKIE)
            .into_iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    fn name(&self, key: &str) -> String {
        format!("{}tb_auth_{key}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn cookies(url: &str) -> Cookies {
        Cookies::of(&Url::parse(url).unwrap())
    }

    #[test]
    fn the_address_decides_the_attributes() {
        let age = Duration::from_secs(600);
        assert_eq!(
            cookies("https://b.example/").set("ab", "v", age),
            "__Host-tb_auth_ab=v; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure"
        );
        assert_eq!(
            cookies("https://b.example/tb/").clear("ab"),
            "__Secure-tb_auth_ab=; Path=/tb/; Max-Age=0; HttpOnly; SameSite=Lax; Secure"
        );
        assert_eq!(
            cookies("http://127.0.0.1:7481/").set("ab", "v", age),
            "tb_auth_ab=v; Path=/; Max-Age=600; HttpOnly; SameSite=Lax"
        );
    }

    #[test]
    fn a_visits_own_cookie_is_found() {
        let mut headers = HeaderMap::new();
        let line = "x=1; __Host-tb_auth_ab=mine; tb_auth_ab=other";
        headers.append(header::COOKIE, HeaderValue::from_static(line));
        headers.append(header::COOKIE, HeaderValue::from_static("tb_auth_cd=z"));
        let secure = cookies("https://b.example/");
        assert_eq!(secure.find(&headers, "ab"), Some("mine"));
        assert_eq!(secure.find(&headers, "cd"), None);
        let plain = cookies("http://localhost/");
        assert_eq!(plain.find(&headers, "cd"), Some("z"));
    }
}
