//! What the AWS clients of a function share, made so that a cold start waits for little.
//!
//! The SDK's own defaults read every certificate of the host before the first event, most of what such a start cost:
//! about 140 of them, where AWS's own addresses need five. And they look for credentials in many places, where a function
//! has them in its environment.

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};

/// The authorities of Amazon Trust Services, which AWS asks clients to trust (Amazon Root CA 1 to 4, Starfield Services
/// Root G2), as in Mozilla's list. The first of them ends in 2037.
const AMAZON_ROOTS: &[u8] = include_bytes!("amazon-roots.pem");

/// The settings of a function's clients in this region. With `host_roots` they trust whom the host trusts: for a network
/// that looks into TLS connections.
///
/// # Errors
/// A sentence, if the certificates cannot be used.
pub async fn function_config(region: &str, host_roots: bool) -> Result<SdkConfig, String> {
    let config = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .credentials_provider(EnvironmentVariableCredentialsProvider::new());
    if host_roots {
        return Ok(config.load().await);
    }
    let roots = TrustStore::empty().with_pem_certificate(AMAZON_ROOTS);
    let tls = TlsContext::builder().with_trust_store(roots).build().map_err(|error| error.to_string())?;
    let client = Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(tls);
    Ok(config.http_client(client.build_https()).load().await)
}
