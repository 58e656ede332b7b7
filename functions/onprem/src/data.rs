//! Where an operator's command finds its data: a site's folder or, with `--aws`, the tables of an environment on AWS.

use crate::fault::Fault;
use crate::host::HostArgs;
use crate::site;
use shared::adapters::onprem::Sqlite;
use shared::app::Stores;

/// Opened data.
pub(crate) struct Data {
    pub(crate) stores: Stores,
    /// Has to be closed; AWS has not.
    site: Option<Sqlite>,
}

impl Data {
    /// Data that must be there: a command that only looks makes nothing.
    pub(crate) async fn existing(host: &HostArgs) -> Result<Self, Fault> {
        match &host.aws {
            Some(environment) => on_aws(environment).await,
            None => Ok(Self::of_site(site::existing_store(&host.data, "")?)),
        }
    }

    /// As [`Data::existing`]; a site's folder is made if it is not there and `init` says so.
    pub(crate) async fn existing_or_new(host: &HostArgs, init: bool) -> Result<Self, Fault> {
        match &host.aws {
            Some(environment) => on_aws(environment).await,
            None if init => Ok(Self::of_site(site::store(&host.data)?)),
            None => {
                let instead =
                    ", or make a new one with --init; `reef serve` makes one, too, with a first token";
                Ok(Self::of_site(site::existing_store(&host.data, instead)?))
            }
        }
    }

    fn of_site(store: Sqlite) -> Self {
        Self { stores: site::stores(&store), site: Some(store) }
    }

    /// Waits until everything is on disk.
    pub(crate) async fn close(self) -> Result<(), Fault> {
        match self.site {
            Some(store) => store.close().await.map_err(Fault::from),
            None => Ok(()),
        }
    }
}

#[cfg(feature = "aws")]
async fn on_aws(environment: &str) -> Result<Data, Fault> {
    let stores = shared::cloud::operator::connect(environment).await;
    let stores = stores.map_err(|problem| {
        Fault::new(format!("the environment {environment} on AWS cannot be used: {problem}"))
    })?;
    Ok(Data { stores, site: None })
}

/// Never asked for: the option is refused before any command.
#[cfg(not(feature = "aws"))]
async fn on_aws(_environment: &str) -> Result<Data, Fault> {
    Err(crate::host::without_aws("--aws"))
}
