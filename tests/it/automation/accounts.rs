//! Accounts: one of a username at a provider, connected or not.

use super::*;

/// Who is listed with this filter.
async fn listed(f: &Farm, request: pb::ListAccountsRequest) -> Vec<String> {
    let listed = f.jobs().list_accounts(request).await.unwrap();
    let accounts = listed.into_inner().accounts.into_iter();
    accounts.map(|account| account.username).collect()
}

async fn connected(f: &Farm, connected: pb::ConnectedFilter) -> Vec<String> {
    let request = pb::ListAccountsRequest {
        connected: connected.into(),
        ..Default::default()
    };
    listed(f, request).await
}

async fn mark(f: &Farm, account_id: &str, connection_id: &str) -> pb::Account {
    let request = pb::MarkConnectedRequest {
        account_id: account_id.to_owned(),
        connection_id: connection_id.to_owned(),
    };
    let marked = f.jobs().mark_connected(request).await.unwrap();
    marked.into_inner().account.unwrap()
}

fn delete(account: &pb::Account) -> pb::DeleteAccountRequest {
    pb::DeleteAccountRequest {
        account_id: account.id.clone(),
        ..Default::default()
    }
}

on_both_engines! {
    async fn a_username_is_kept_once_for_a_provider(engine: Engine) {
        let f = Farm::new(engine).await;
        let app = f.b.app().await;
        let made = f.account(&app, "ada").await;
        assert!(made.id.starts_with("acct_"), "{made:?}");
        assert_eq!((made.provider.as_str(), &made.app, made.owner.as_str()), ("fake", &app.id, "ada"));
        assert_eq!(made.r#type(), pb::ConnectionKind::Oauth2);
        assert!(!made.has_password && !made.has_totp && !made.has_client_secret);
        assert_refused(f.try_account(account(&app, "ada")).await, Code::AlreadyExists, "ALREADY_EXISTS");
        f.account(&app, "Ada").await;
        let elsewhere = pb::Account { provider: "github".to_owned(), username: "ada".to_owned(), ..Default::default() };
        assert_eq!(f.try_account(elsewhere).await.unwrap().app, "");
        assert_eq!(f.account_now(&made.id).await, made);
        f.finish().await;
    }

    async fn those_that_are_not_connected_are_found(engine: Engine) {
        use pb::ConnectedFilter::{Connected, NotConnected, Unspecified};
        let f = Farm::new(engine).await;
        let c = f.b.connected().await;
        let app = pb::App { id: c.app_id.clone(), ..Default::default() };
        let one = f.account(&app, "one").await;
        f.account(&app, "two").await;
        assert_eq!(connected(&f, NotConnected).await, ["one", "two"]);
        let marked = mark(&f, &one.id, &c.id).await;
        assert_eq!((marked.connection_id, micros(marked.connect_time)), (c.id, f.b.clock.now().micros()));
        assert_eq!(connected(&f, NotConnected).await, ["two"]);
        assert_eq!(connected(&f, Connected).await, ["one"]);
        assert_eq!(connected(&f, Unspecified).await, ["one", "two"]);
        assert_eq!(mark(&f, &one.id, "").await.connection_id, "");
        assert_eq!(connected(&f, NotConnected).await, ["one", "two"]);
        f.finish().await;
    }

    async fn what_is_marked_has_to_be_there(engine: Engine) {
        let f = Farm::new(engine).await;
        let app = f.b.app().await;
        let account_id = f.account(&app, "ada").await.id;
        let nobody = tokenbroker::model::IdKind::Connection.new_id();
        let request = pb::MarkConnectedRequest { account_id, connection_id: nobody.clone() };
        assert_refused(f.jobs().mark_connected(request).await, Code::NotFound, "CONNECTION_NOT_FOUND");
        let account_id = tokenbroker::model::IdKind::Account.new_id();
        let request = pb::MarkConnectedRequest { account_id, connection_id: nobody };
        assert_refused(f.jobs().mark_connected(request).await, Code::NotFound, "ACCOUNT_NOT_FOUND");
        f.b.provider.sign_in_as(Account::named("ada"));
        let c = f.b.connect(&app, "owner-1").await;
        let elsewhere = pb::Account { provider: "github".to_owned(), username: "ada".to_owned(), ..Default::default() };
        let elsewhere = f.try_account(elsewhere).await.unwrap();
        let request = pb::MarkConnectedRequest { account_id: elsewhere.id.clone(), connection_id: c.id };
        assert_eq!(violations(&f.jobs().mark_connected(request).await.unwrap_err()), ["connection_id"]);
        assert_eq!(f.account_now(&elsewhere.id).await, elsewhere);
        let lost = pb::Account { app: "nobody".to_owned(), ..account(&app, "grace") };
        assert_refused(f.try_account(lost).await, Code::NotFound, "APP_NOT_FOUND");
        f.finish().await;
    }

    async fn a_connection_that_is_deleted_leaves_its_account_unconnected(engine: Engine) {
        let f = Farm::new(engine).await;
        let c = f.b.connected().await;
        let app = pb::App { id: c.app_id.clone(), ..Default::default() };
        let account = f.account(&app, "ada").await;
        let marked = mark(&f, &account.id, &c.id).await;
        f.b.clock.advance(SECOND);
        let request = pb::DeleteConnectionRequest { connection_id: c.id, ..Default::default() };
        f.b.admin.broker.clone().delete_connection(request).await.unwrap();
        let left = f.account_now(&account.id).await;
        assert_eq!((left.connection_id.as_str(), left.connect_time), ("", None));
        assert_ne!(left.etag, marked.etag);
        assert_eq!(micros(left.update_time), f.b.clock.now().micros());
        assert_eq!(connected(&f, pb::ConnectedFilter::NotConnected).await, ["ada"]);
        f.finish().await;
    }

    async fn a_change_is_of_what_was_read(engine: Engine) {
        let f = Farm::new(engine).await;
        let app = f.b.app().await;
        let made = f.account(&app, "ada").await;
        let changed = pb::Account { display_name: "Ada".to_owned(), labels: [("team".to_owned(), "1".to_owned())].into(), ..made.clone() };
        let request = pb::UpdateAccountRequest { account: Some(changed), update_mask: None };
        let changed = f.jobs().update_account(request.clone()).await.unwrap().into_inner().account.unwrap();
        assert_eq!((changed.display_name.as_str(), changed.labels["team"].as_str()), ("Ada", "1"));
        assert_eq!(changed.owner, "ada");
        assert_eq!(f.jobs().update_account(request).await.unwrap_err().code(), Code::Aborted);
        let stale = pb::DeleteAccountRequest { account_id: made.id.clone(), etag: made.etag };
        assert_eq!(f.jobs().delete_account(stale).await.unwrap_err().code(), Code::Aborted);
        let only = pb::UpdateAccountRequest {
            account: Some(pb::Account { id: made.id, owner: "team-1".to_owned(), ..Default::default() }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["owner".to_owned(), "app".to_owned()] }),
        };
        let changed = f.jobs().update_account(only).await.unwrap().into_inner().account.unwrap();
        assert_eq!((changed.owner.as_str(), changed.app.as_str(), changed.display_name.as_str()), ("team-1", "", "Ada"));
        f.finish().await;
    }

    async fn an_account_stays_while_jobs_of_it_are_not_finished(engine: Engine) {
        let f = Farm::new(engine).await;
        let app = f.b.app().await;
        let account = f.account(&app, "ada").await;
        let job = f.create(pb::NewJob { account_id: account.id.clone(), ..job("connect") }).await;
        assert_eq!(job.provider, "fake");
        assert_refused(f.jobs().delete_account(delete(&account)).await, REFUSED, "HAS_OPEN_JOBS");
        f.cancel(&job.id).await.unwrap();
        f.jobs().delete_account(delete(&account)).await.unwrap();
        assert_refused(f.jobs().delete_account(delete(&account)).await, Code::NotFound, "ACCOUNT_NOT_FOUND");
        assert_eq!(f.job(&job.id).await.account_id, account.id);
        let gone = pb::NewJob { account_id: account.id, ..self::job("connect") };
        assert_refused(f.try_create(gone).await, Code::NotFound, "ACCOUNT_NOT_FOUND");
        f.finish().await;
    }

    async fn a_retried_creation_answers_the_same(engine: Engine) {
        let f = Farm::new(engine).await;
        let app = f.b.app().await;
        let request = pb::CreateAccountRequest {
            account: Some(account(&app, "ada")),
            credentials: Some(credentials("ada")),
            request_id: "0193c5a0-0000-7000-8000-000000000001".to_owned(),
        };
        let made = f.jobs().create_account(request.clone()).await.unwrap().into_inner().account.unwrap();
        assert!(made.has_password && made.has_totp && made.has_client_secret);
        let again = f.jobs().create_account(request).await.unwrap().into_inner().account.unwrap();
        assert_eq!(again, made);
        f.finish().await;
    }

    async fn a_list_has_pages(engine: Engine) {
        let f = Farm::new(engine).await;
        let app = f.b.app().await;
        for number in 0..5 {
            f.account(&app, &format!("ada-{number}")).await;
        }
        let mut request = pb::ListAccountsRequest { page_size: 2, provider: "fake".to_owned(), ..Default::default() };
        let mut seen = Vec::new();
        loop {
            let page = f.jobs().list_accounts(request.clone()).await.unwrap().into_inner();
            assert!(page.accounts.len() <= 2);
            seen.extend(page.accounts.into_iter().map(|account| account.username));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, ["ada-0", "ada-1", "ada-2", "ada-3", "ada-4"]);
        let nobodys = pb::ListAccountsRequest { provider: "github".to_owned(), ..Default::default() };
        assert!(listed(&f, nobodys).await.is_empty());
        f.finish().await;
    }
}
