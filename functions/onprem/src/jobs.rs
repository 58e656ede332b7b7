//! `reef jobs list|redrive`.

use crate::data::Data;
use crate::fault::Fault;
use crate::host::HostArgs;
use crate::output::{self, Output, OutputArgs, rfc3339};
use crate::site;
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use shared::app::Stores;
use shared::clock::{Clock, SystemClock};
use shared::error::StoreError;
use shared::id::{JobId, TenantId};
use shared::job::{Job, JobFilter, JobQueue, JobState, Work};
use shared::quote::quoted;
use shared::session::{Turn, TurnOutcome};

/// `reef jobs …`
#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// List jobs, newest first, and turns that are parked: whether their tool took effect only a person can find out
    List {
        /// Only jobs in this state
        #[arg(long)]
        state: Option<State>,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = output::limit)]
        limit: usize,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Deliver a dead job again
    Redrive {
        /// The job's id
        id: String,
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// A job's state.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum State {
    /// Waiting, delayed, or being worked on
    Pending,
    /// Finished
    Done,
    /// Given up
    Dead,
}

impl From<State> for JobState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Done => Self::Done,
            State::Dead => Self::Dead,
        }
    }
}

pub(crate) fn run(command: JobsCommand, host: &HostArgs) -> Result<(), Fault> {
    site::block_on(async {
        let data = Data::existing(host).await?;
        match command {
            JobsCommand::List { state, limit, output } => {
                list(&data.stores, state.map(JobState::from), limit, &Output::new(output, host)).await?;
            }
            JobsCommand::Redrive { id, output } => redrive(data.stores.jobs.as_ref(), id, output).await?,
        }
        data.close().await
    })?
}

async fn list(stores: &Stores, state: Option<JobState>, limit: usize, output: &Output) -> Result<(), Fault> {
    let tenant = TenantId::single();
    // One more than is shown tells whether there are more.
    let asked = limit.saturating_add(1);
    let filter = JobFilter { id: None, state, limit: asked };
    let mut jobs = stores.jobs.list(&tenant, &filter, SystemClock.now()).await?;
    let more_jobs = output::cut(&mut jobs, limit, "jobs");
    // A parked turn is nothing that a job's state says.
    let mut parked = if state.is_none() { stores.index.parked(&tenant, asked).await? } else { Vec::new() };
    let more_parked = output::cut(&mut parked, limit, "parked turns");
    if output.json {
        let jobs: Vec<_> = jobs.iter().map(shown).collect();
        let parked: Vec<_> = parked.iter().map(shown_turn).collect();
        output::json(&json!({"jobs": jobs, "parked": parked}))?;
        output.more(more_jobs)?;
        return Ok(output.more(more_parked)?);
    }
    let rows = jobs.iter().map(|job| {
        let Work::Turn(request) = &job.job.work;
        [
            job.job.id.to_string(),
            word(job.state).to_owned(),
            request.session.to_string(),
            job.attempts.to_string(),
            output.time(job.created_at),
            if job.state == JobState::Pending { output.time(job.visible_at) } else { "-".to_owned() },
            job.reason.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    let header = ["JOB", "STATE", "SESSION", "ATTEMPTS", "MADE", "NEXT", "REASON"];
    output::table(header, rows.collect(), "no jobs")?;
    output.more(more_jobs)?;
    if !parked.is_empty() {
        output::line(
            "\nparked turns: whether the tool took effect is not known, so they are never run again by themselves",
        )?;
        let rows = parked.iter().map(|turn| {
            let call = match &turn.outcome {
                Some(TurnOutcome::Parked(parked)) => {
                    format!("{} {}", parked.call.name, parked.call.arguments)
                }
                _ => "-".to_owned(),
            };
            [turn.id.to_string(), turn.session.to_string(), output.maybe_time(turn.ended_at), call]
        });
        output::table(["TURN", "SESSION", "PARKED", "CALL"], rows.collect(), "")?;
        output.more(more_parked)?;
    }
    Ok(())
}

async fn redrive(queue: &dyn JobQueue, id: String, output: OutputArgs) -> Result<(), Fault> {
    let id = JobId::new(id);
    let tenant = TenantId::single();
    match queue.redrive(&tenant, &id, SystemClock.now()).await {
        Ok(()) => {}
        Err(StoreError::NotFound) => {
            let shown = quoted(id.as_str());
            return Err(Fault::new(format!(
                "there is no dead job {shown}; see `reef jobs list --state dead`"
            )));
        }
        Err(StoreError::Unreadable { source, .. }) => {
            let shown = output::clean(id.as_str());
            return Err(Fault::new(format!(
                "the job {shown} cannot be read, so it cannot be delivered again: {source}; `reef data check` lists what else cannot be read"
            )));
        }
        Err(StoreError::Elsewhere { region }) => {
            return Err(Fault::new(format!(
                "the job {} belongs to the region {region}: redrive it there, with AWS_REGION={region}. If that region is lost, evacuate it first; if it is evacuated, part of the job was never replicated, and it waits for that region",
                quoted(id.as_str())
            )));
        }
        Err(error) => return Err(error.into()),
    }
    if output.json {
        let filter = JobFilter { id: Some(id), state: None, limit: 1 };
        let jobs = queue.list(&tenant, &filter, SystemClock.now()).await?;
        output::json(&jobs.first().map_or(Value::Null, shown))?;
    } else {
        output::line(&format!("job {id} is delivered again; a running server takes it up within a second"))?;
    }
    Ok(())
}

const fn word(state: JobState) -> &'static str {
    match state {
        JobState::Pending => "pending",
        JobState::Done => "done",
        JobState::Dead => "dead",
    }
}

fn shown(job: &Job) -> Value {
    let Work::Turn(request) = &job.job.work;
    json!({
        "id": job.job.id,
        "state": job.state,
        "agent": request.agent,
        "session": request.session,
        "turn": request.turn,
        "attempts": job.attempts,
        "created_at": rfc3339(job.created_at),
        "visible_at": rfc3339(job.visible_at),
        "reason": job.reason,
    })
}

fn shown_turn(turn: &Turn) -> Value {
    let call = match &turn.outcome {
        Some(TurnOutcome::Parked(parked)) => json!(parked.call),
        _ => Value::Null,
    };
    json!({
        "turn": turn.id,
        "session": turn.session,
        "agent": turn.agent,
        "parked_at": turn.ended_at.and_then(rfc3339),
        "call": call,
    })
}
