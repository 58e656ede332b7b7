//! Tokens: [`shared::principal::TokenStore`].

use harness::stores::{at, tenant, token};
use shared::app::Stores;
use shared::error::StoreError;
use shared::id::{AgentId, PrincipalId, TenantId};
use shared::limit::Limit;
use shared::principal::{Scope, Token};
use tokio::task::JoinSet;

async fn find(stores: &Stores, id: &str) -> Option<Token> {
    stores.tokens.find(&PrincipalId::new(id)).await.expect("an answer")
}

pub(crate) async fn a_token_comes_back_as_it_was_stored(stores: &Stores) {
    assert_eq!(find(stores, "plain").await, None);
    let plain = token("plain", 10);
    let full = Token {
        name: "it's \"日本語\"".to_owned(),
        scopes: Scope::ALL.to_vec(),
        agents: Some(vec![AgentId::new("mail"), AgentId::new("research")]),
        cidrs: Some(vec!["10.0.0.0/8".parse().expect("a network"), "::1/128".parse().expect("a network")]),
        limit: Some(Limit { per_second: 0.1 + 0.2, burst: u32::MAX }),
        expires_at: Some(at(99)),
        revoked_at: Some(at(50)),
        ..token("full", 20)
    };
    let none = Token { scopes: Vec::new(), agents: Some(Vec::new()), ..token("none", 30) };
    for stored in [plain, full, none] {
        stores.tokens.insert(&stored).await.expect("an insertion");
        assert_eq!(find(stores, stored.id.as_str()).await, Some(stored));
    }
}

pub(crate) async fn an_id_is_taken_once(stores: &Stores) {
    let first = token("t", 10);
    stores.tokens.insert(&first).await.expect("an insertion");
    for second in [token("t", 20), Token { tenant: TenantId::new("other"), ..token("t", 20) }] {
        let refused = stores.tokens.insert(&second).await;
        assert!(matches!(refused, Err(StoreError::Broken(_))), "{refused:?}");
    }
    assert_eq!(find(stores, "t").await, Some(first));
}

pub(crate) async fn of_many_first_tokens_at_once_one_is_stored(stores: &Stores) {
    let mut at_once = JoinSet::new();
    for number in 0..8 {
        let (stores, first) = (stores.clone(), token(&format!("first-{number}"), number));
        at_once.spawn(async move { stores.tokens.insert_first(&first).await.expect("an answer") });
    }
    let stored = at_once.join_all().await;
    assert_eq!(stored.iter().filter(|stored| **stored).count(), 1, "{stored:?}");
    let listed = stores.tokens.list(&tenant()).await.expect("a listing");
    assert_eq!(listed.len(), 1, "{listed:?}");
    let other = Token { tenant: TenantId::new("other"), ..token("other", 10) };
    assert!(stores.tokens.insert_first(&other).await.expect("an answer"), "each tenant has a first one");
}

pub(crate) async fn tokens_are_listed_oldest_first_for_their_tenant(stores: &Stores) {
    for (id, created) in [("c", 20), ("a", 30), ("b", 20), ("d", 10)] {
        stores.tokens.insert(&token(id, created)).await.expect("an insertion");
    }
    let elsewhere = Token { tenant: TenantId::new("other"), ..token("e", 5) };
    stores.tokens.insert(&elsewhere).await.expect("an insertion");
    let expected = [token("d", 10), token("b", 20), token("c", 20), token("a", 30)];
    assert_eq!(stores.tokens.list(&tenant()).await.expect("a listing"), expected);
    assert_eq!(stores.tokens.list(&TenantId::new("other")).await.expect("a listing"), [elsewhere]);
    assert_eq!(stores.tokens.list(&TenantId::new("nobody")).await.expect("a listing"), []);
}

pub(crate) async fn a_revocation_keeps_its_first_time(stores: &Stores) {
    stores.tokens.insert(&token("t", 10)).await.expect("an insertion");
    stores.tokens.insert(&token("other", 10)).await.expect("an insertion");
    for now in [20, 30] {
        stores.tokens.revoke(&tenant(), &PrincipalId::new("t"), at(now)).await.expect("a revocation");
    }
    let revoked = Token { revoked_at: Some(at(20)), ..token("t", 10) };
    assert_eq!(find(stores, "t").await, Some(revoked.clone()));
    assert_eq!(stores.tokens.list(&tenant()).await.expect("a listing"), [token("other", 10), revoked]);
}

pub(crate) async fn a_token_of_another_tenant_is_not_there(stores: &Stores) {
    stores.tokens.insert(&token("t", 10)).await.expect("an insertion");
    for (tenant, id) in [(TenantId::new("other"), "t"), (tenant(), "unknown")] {
        let refused = stores.tokens.revoke(&tenant, &PrincipalId::new(id), at(20)).await;
        assert!(matches!(refused, Err(StoreError::NotFound)), "{refused:?}");
    }
    assert_eq!(find(stores, "t").await, Some(token("t", 10)));
}
