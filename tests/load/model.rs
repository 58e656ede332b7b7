//! The mock model as a process: the tests' own vendor, and how many requests it has seen.

use crate::{Result, process};
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::routing::get;
use harness::vendor::{Desk, Options, router};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Serves until it is killed.
pub(crate) fn run(pause: u64, text: String) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let desk = Desk::new(Options { text: Some(text), pause: Duration::from_millis(pause), forget: true });
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let routes = router(desk)
        .layer(from_fn(move |request: Request, next: Next| {
            count.fetch_add(1, Ordering::Relaxed);
            next.run(request)
        }))
        // Behind the layer: asking does not count.
        .route("/seen", get(move || std::future::ready(seen.load(Ordering::Relaxed).to_string())));
    runtime.block_on(process::serve(routes))
}
