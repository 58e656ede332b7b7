//! [`TokenStore`] in memory.

use super::Memory;
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{PrincipalId, TenantId};
use crate::principal::{Token, TokenStore};
use async_trait::async_trait;

#[async_trait]
impl TokenStore for Memory {
    async fn insert(&self, token: &Token) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.tokens.contains_key(&token.id) {
            return Err(StoreError::Broken("this token id is taken".into()));
        }
        state.tokens.insert(token.id.clone(), token.clone());
        Ok(())
    }

    async fn insert_first(&self, token: &Token) -> Result<bool, StoreError> {
        let mut state = self.state();
        if state.tokens.values().any(|known| known.tenant == token.tenant) {
            return Ok(false);
        }
        if state.tokens.contains_key(&token.id) {
            return Err(StoreError::Broken("this token id is taken".into()));
        }
        state.tokens.insert(token.id.clone(), token.clone());
        Ok(true)
    }

    async fn find(&self, id: &PrincipalId) -> Result<Option<Token>, StoreError> {
        Ok(self.state().tokens.get(id).cloned())
    }

    async fn list(&self, tenant: &TenantId) -> Result<Vec<Token>, StoreError> {
        let state = self.state();
        let mut tokens: Vec<Token> =
            state.tokens.values().filter(|token| token.tenant == *tenant).cloned().collect();
        // The map is ordered by id, and the sort keeps that order among equals.
        tokens.sort_by_key(|token| token.created_at);
        Ok(tokens)
    }

    async fn revoke(&self, tenant: &TenantId, id: &PrincipalId, now: Timestamp) -> Result<(), StoreError> {
        let mut state = self.state();
        match state.tokens.get_mut(id) {
            Some(token) if token.tenant == *tenant => {
                token.revoked_at.get_or_insert(now);
                Ok(())
            }
            _ => Err(StoreError::NotFound),
        }
    }
}
