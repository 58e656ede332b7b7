//! `reef token create|list|revoke`.

use crate::data::Data;
use crate::fault::Fault;
use crate::host::HostArgs;
use crate::output::{self, Output, OutputArgs, rfc3339};
use crate::site;
use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde_json::{Value, json};
use shared::clock::{Clock, SystemClock, Timestamp};
use shared::error::StoreError;
use shared::id::{AgentId, PrincipalId, RandomIds, TenantId};
use shared::limit::Limit;
use shared::principal::{NewToken, Scope, Token, TokenStore};
use std::net::IpAddr;
use std::time::Duration;

/// `reef token …`
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; its text is shown only this once
    Create(CreateArgs),
    /// List tokens, expired and revoked ones included
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Revoke a token for good
    Revoke {
        /// Its id, the middle part of its text
        id: String,
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// Options of `reef token create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Whose it is or what it is for
    #[arg(long)]
    name: String,
    /// What it may do: chat, sessions, tools, hooks, metrics, admin
    #[arg(long, value_delimiter = ',', required = true, value_parser = scope)]
    scopes: Vec<Scope>,
    /// With which agents; default: all
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    agents: Option<Vec<String>>,
    /// From which addresses or networks; default: anywhere
    #[arg(long, value_delimiter = ',', value_parser = network)]
    cidrs: Option<Vec<IpNet>>,
    /// For how long, e.g. 90m, 12h, 30d; default: until revoked
    #[arg(long, value_parser = duration, value_name = "TIME")]
    expires: Option<Duration>,
    /// Its own rate limit, requests a second and burst; default: the settings'
    #[arg(long, value_parser = rate_limit, value_name = "RATE,BURST")]
    rate_limit: Option<Limit>,
    /// Make a new data folder if there is none; without this a wrong --data is refused
    #[arg(long)]
    init: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(command: TokenCommand, host: &HostArgs) -> Result<(), Fault> {
    site::block_on(async {
        let data = match &command {
            // Before the first start a folder may be made, but only if that is meant: a token of a folder that nobody serves
            // is good for nothing.
            TokenCommand::Create(args) => Data::existing_or_new(host, args.init).await?,
            TokenCommand::List { .. } | TokenCommand::Revoke { .. } => Data::existing(host).await?,
        };
        let tokens = data.stores.tokens.as_ref();
        match command {
            TokenCommand::Create(args) => create(args, tokens, host).await?,
            TokenCommand::List { output } => list(tokens, &Output::new(output, host)).await?,
            TokenCommand::Revoke { id, output } => revoke(&id, tokens, &Output::new(output, host)).await?,
        }
        data.close().await
    })?
}

async fn create(args: CreateArgs, store: &dyn TokenStore, host: &HostArgs) -> Result<(), Fault> {
    let now = SystemClock.now();
    let agents = args.agents.map(|ids| ids.into_iter().map(AgentId::new).collect::<Vec<_>>());
    if let Some(agents) = &agents {
        let config = host.agents()?;
        if let Some(unknown) = agents.iter().find(|id| config.agent(id).is_none()) {
            let known: Vec<&str> = config.agents.iter().map(|agent| agent.id.as_str()).collect();
            return Err(Fault::new(format!(
                "--agents: there is no agent {unknown}; there are {}",
                known.join(", ")
            )));
        }
    }
    let wanted = NewToken {
        name: args.name,
        scopes: args.scopes,
        agents,
        cidrs: args.cidrs,
        limit: args.rate_limit,
        expires_at: args.expires.map(|after| now + after),
    };
    let (token, text) = wanted.mint(TenantId::single(), &RandomIds, now);
    store.insert(&token).await?;
    if args.output.json {
        let mut out = shown(&token, now);
        out["token"] = json!(text.expose());
        output::json(&out)?;
    } else {
        output::line(&format!(
            "token {} of {} (shown only this once):",
            token.id,
            output::clean(&token.name)
        ))?;
        output::line(text.expose())?;
    }
    Ok(())
}

async fn list(store: &dyn TokenStore, output: &Output) -> Result<(), Fault> {
    let now = SystemClock.now();
    let tokens = store.list(&TenantId::single()).await?;
    if output.json {
        output::json(&tokens.iter().map(|token| shown(token, now)).collect())?;
        return Ok(());
    }
    let rows = tokens.iter().map(|token| {
        [
            token.id.to_string(),
            token.name.clone(),
            state(token, now).to_owned(),
            join(&token.scopes),
            token.agents.as_ref().map_or_else(|| "all".to_owned(), |agents| join(agents)),
            token.cidrs.as_ref().map_or_else(|| "anywhere".to_owned(), |cidrs| join(cidrs)),
            token.limit.map_or_else(
                || "default".to_owned(),
                |limit| format!("{},{}", limit.per_second, limit.burst),
            ),
            output.time(token.created_at),
            output.maybe_time(token.revoked_at.or(token.expires_at)),
        ]
    });
    let header = ["ID", "NAME", "STATE", "SCOPES", "AGENTS", "FROM", "LIMIT", "MADE", "ENDS"];
    output::table(header, rows.collect(), "no tokens; make one with `reef token create`")?;
    Ok(())
}

async fn revoke(id: &str, store: &dyn TokenStore, output: &Output) -> Result<(), Fault> {
    let now = SystemClock.now();
    let tenant = TenantId::single();
    let id = PrincipalId::new(id);
    match store.revoke(&tenant, &id, now).await {
        Ok(()) => {}
        Err(StoreError::NotFound) => {
            return Err(Fault::new(format!(
                "there is no token {}; see `reef token list`",
                output::clean(id.as_str())
            )));
        }
        Err(error) => return Err(error.into()),
    }
    if output.json {
        let token = store.find(&id).await?;
        output::json(&token.map_or(Value::Null, |token| shown(&token, now)))?;
    } else {
        output::line(&format!("token {id} is revoked"))?;
    }
    Ok(())
}

fn state(token: &Token, now: Timestamp) -> &'static str {
    match token.revoked_at {
        Some(_) => "revoked",
        None if token.is_live(now) => "live",
        None => "expired",
    }
}

fn shown(token: &Token, now: Timestamp) -> Value {
    json!({
        "id": token.id,
        "name": token.name,
        "state": state(token, now),
        "scopes": token.scopes,
        "agents": token.agents,
        "cidrs": token.cidrs,
        "rate_limit": token.limit,
        "created_at": rfc3339(token.created_at),
        "expires_at": token.expires_at.and_then(rfc3339),
        "revoked_at": token.revoked_at.and_then(rfc3339),
    })
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn scope(text: &str) -> Result<Scope, String> {
    text.trim().parse()
}

fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| "write an address or a network, e.g. 10.0.0.5 or 10.0.0.0/8".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a whole number and s, m, h, d or w, e.g. 30d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let number = text.strip_suffix(unit).and_then(|number| number.parse::<u64>().ok()).ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(wrong()),
    };
    // A century is for ever, and no time beyond the calendar is made.
    let seconds = number.checked_mul(seconds).filter(|seconds| (1..=3_155_760_000).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

fn rate_limit(text: &str) -> Result<Limit, String> {
    let wrong = || "write requests a second and burst, e.g. 10,20".to_owned();
    let (rate, burst) = text.split_once(',').ok_or_else(wrong)?;
    let per_second: f64 = rate.trim().parse().map_err(|_| wrong())?;
    let burst = burst.trim().parse().map_err(|_| wrong())?;
    if (0.001..=1_000_000.0).contains(&per_second) { Ok(Limit { per_second, burst }) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        let read = ["45s", "90m", "12h", "30d", "2w"].map(|text| duration(text).unwrap().as_secs());
        assert_eq!(read, [45, 5400, 43_200, 2_592_000, 1_209_600]);
        for text in ["", "d", "30", "0d", "-1d", "1.5h", "30é", "99999999999999999999w", "9999999w"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_limit_is_two_numbers() {
        assert_eq!(rate_limit("2.5, 7").unwrap(), Limit { per_second: 2.5, burst: 7 });
        for text in ["", "10", "0,5", "-1,5", "NaN,5", "inf,5", "10,-1", "10,5,5"] {
            assert!(rate_limit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_single_address_is_a_network_of_one() {
        assert_eq!(network("10.0.0.5").unwrap().to_string(), "10.0.0.5/32");
        assert_eq!(network("2001:db8::/32").unwrap().to_string(), "2001:db8::/32");
        assert!(network("10.0.0.0/33").is_err());
    }
}
