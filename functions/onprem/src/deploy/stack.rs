//! One stack: what deploys it, where it answers, and what tells whether it works.

use super::command::Command;

/// States in which a stack has never been complete, or was left where it failed. Nothing is rolled back then: a creation
/// that is rolled back leaves a stack that takes no changes, and tables that are in the way of the next one.
const UNFINISHED: [&str; 3] = ["REVIEW_IN_PROGRESS", "CREATE_FAILED", "UPDATE_FAILED"];

/// States in which a stack takes no changes any more.
const STUCK: [&str; 4] = ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED", "UPDATE_ROLLBACK_FAILED"];

/// A question to what was deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) command: Command,
    pub(super) wanted: &'static str,
}

impl Probe {
    pub(super) fn is_content(&self, said: &str) -> bool {
        said.replace(' ', "").contains(self.wanted)
    }
}

/// One stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stack {
    pub(super) name: String,
    pub(super) region: String,
    /// Whether its functions are given the vendors' keys.
    pub(super) takes_keys: bool,
    /// What builds it, if it is built.
    pub(super) build: Option<Command>,
    /// What deploys it.
    pub(super) deploy: Command,
    /// What tells where it answers.
    pub(super) address: Option<Command>,
    /// What tells whether it works.
    pub(super) probes: Vec<Probe>,
}

impl Stack {
    pub(super) fn title(&self) -> String {
        format!("{} in {}", self.name, self.region)
    }

    /// Asks for the stack's state.
    pub(super) fn state(&self) -> Command {
        self.described("Stacks[0].StackStatus")
    }

    /// Asks for something about the stack.
    pub(super) fn described(&self, query: &str) -> Command {
        let stack =
            ["cloudformation", "describe-stacks", "--region", &self.region, "--stack-name", &self.name];
        Command::new("aws", &[&stack[..], &["--query", query, "--output", "text"]].concat())
    }

    /// What deploys it from the state that AWS told, or why nothing does.
    pub(super) fn deploy_from(&self, told: Result<String, String>) -> Result<Command, String> {
        let state = match told {
            Ok(state) => state,
            // The same sentence that the SAM CLI looks for: AWS has no better sign.
            Err(problem) if problem.contains("does not exist") => UNFINISHED[0].to_owned(),
            Err(problem) => return Err(problem),
        };
        let state = state.trim();
        if UNFINISHED.contains(&state) {
            let mut deploy = self.deploy.clone();
            deploy.arguments.insert(1, "--disable-rollback".to_owned());
            return Ok(deploy);
        }
        if !STUCK.contains(&state) {
            return Ok(self.deploy.clone());
        }
        let Self { name, region, .. } = self;
        let on = format!("--region {region} --stack-name {name}");
        Err(if state == "UPDATE_ROLLBACK_FAILED" {
            format!(
                "the stack {name} in {region} is {state} and takes no changes until it is brought back:\n  \
                 aws cloudformation continue-update-rollback {on}"
            )
        } else {
            format!(
                "the stack {name} in {region} is {state} and takes no changes. See what it would leave behind, delete it, \
                 and then what it left, which would be in the way:\n  \
                 aws cloudformation describe-stack-events {on} --query \
                 'StackEvents[?ResourceStatus==`DELETE_SKIPPED`].[ResourceType,PhysicalResourceId]' --output text\n  \
                 aws cloudformation delete-stack {on}\n  \
                 aws cloudformation wait stack-delete-complete {on}"
            )
        })
    }
}
