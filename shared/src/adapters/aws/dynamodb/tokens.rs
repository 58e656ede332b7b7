//! [`TokenStore`] on DynamoDB.

use super::attrs::{Draft, to_json};
use super::schema::LISTED;
use super::table::{Attr, Condition, Item, Write};
use super::walk::Walk;
use super::{DynamoStores, TRIES, attrs, contended, keys};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{PrincipalId, TenantId};
use crate::principal::{Token, TokenStore};
use async_trait::async_trait;

/// Where a tenant's tokens are listed.
fn listed_of(tenant: &TenantId) -> String {
    format!("UT#{}", keys::escape(tenant.as_str()))
}

fn item_of(token: &Token) -> Result<Item, StoreError> {
    let place = format!("{}#{}", keys::in_order(token.created_at), keys::escape(token.id.as_str()));
    Ok(Draft::new(keys::token(&token.id))
        .text("token", to_json(token)?)
        .text(LISTED.partition, listed_of(&token.tenant))
        .text(LISTED.sort, place)
        .item())
}

fn read(item: &Item) -> Result<Token, StoreError> {
    attrs::from_json(item.text("token")?)
}

#[async_trait]
impl TokenStore for DynamoStores {
    async fn insert(&self, token: &Token) -> Result<(), StoreError> {
        if self.wrote_once(vec![Write::Put(item_of(token)?, Condition::Absent)]).await? {
            Ok(())
        } else {
            Err(StoreError::Broken("this token id is taken".into()))
        }
    }

    async fn insert_first(&self, token: &Token) -> Result<bool, StoreError> {
        if !self.list(&token.tenant).await?.is_empty() {
            return Ok(false);
        }
        // Of two that come this far one finds the other's mark.
        let mark = Draft::new(keys::first_token(&token.tenant)).text("token", token.id.as_str()).item();
        let writes =
            vec![Write::Put(item_of(token)?, Condition::Absent), Write::Put(mark, Condition::Absent)];
        self.wrote_once(writes).await
    }

    async fn find(&self, id: &PrincipalId) -> Result<Option<Token>, StoreError> {
        let token = self.core.get(&keys::token(id)).await?.as_ref().map(read).transpose();
        token.map_err(attrs::unreadable("the token"))
    }

    async fn list(&self, tenant: &TenantId) -> Result<Vec<Token>, StoreError> {
        let from = String::from("0");
        let walk = Walk::new(self.core.as_ref(), listed_of(tenant), from, "g".to_owned(), 100);
        let mut walk = walk.of(LISTED);
        let mut tokens = Vec::new();
        while let Some(item) = walk.next().await? {
            tokens.extend(self.or_seen("tokens", || item.key.partition.clone(), read(&item))?);
        }
        tokens.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Ok(tokens)
    }

    async fn revoke(&self, tenant: &TenantId, id: &PrincipalId, now: Timestamp) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let item = self.core.get(&keys::token(id)).await?.ok_or(StoreError::NotFound)?;
            let mut token = read(&item)?;
            if token.tenant != *tenant {
                return Err(StoreError::NotFound);
            }
            if token.revoked_at.is_some() {
                return Ok(());
            }
            token.revoked_at = Some(now);
            let as_read = Condition::Is("token", Attr::Text(item.text("token")?.to_owned()));
            if self.wrote(vec![Write::Put(item_of(&token)?, as_read)]).await? {
                return Ok(());
            }
        }
        Err(contended())
    }
}
