//! `openclaw.json`: what is read, in which dialects, and what is said of a file that is wrong.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up fails")]

use serde_json::{Value, json};
use shared::agent::{Agent, Resources, TurnLimits};
use shared::config::{
    Config, GatewayConfig, HooksConfig, Hsts, ModelInfo, ProviderApi, ProviderConfig, TurnConfig, json_schema,
};
use shared::id::AgentId;
use shared::limit::Limit;
use shared::model::ModelRef;
use shared::secret::Secret;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

const FARM: &str = include_str!("fixtures/agent-farm.json");
const SCHEMA: &str = include_str!("../shared/openclaw.schema.json");

/// The variables of a host with both vendors' keys.
fn keys(name: &str) -> Option<String> {
    match name {
        "ANTHROPIC_API_KEY" => Some("sk-ant-1".to_owned()),
        "OPENAI_API_KEY" => Some("sk-openai-1\n".to_owned()),
        "HOME" => Some("/home/reef".to_owned()),
        _ => None,
    }
}

fn nothing(_: &str) -> Option<String> {
    None
}

fn load(text: &str) -> Config {
    Config::load(text, Path::new("/etc/reef"), &keys, false).unwrap_or_else(|problems| panic!("{problems}"))
}

fn problems_with(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let problems = Config::load(text, Path::new("/etc/reef"), env, false).unwrap_err();
    problems.all().iter().map(ToString::to_string).collect()
}

fn problems(text: &str) -> Vec<String> {
    problems_with(text, &keys)
}

fn farm_agent(id: &str, name: &str, memory: u64, cpu: f64) -> Agent {
    Agent {
        id: AgentId::new(id),
        name: name.to_owned(),
        description: None,
        model: "anthropic/claude-sonnet-4-20250514".parse().unwrap(),
        fallbacks: Vec::new(),
        workspace: Path::new("/etc/reef/agents").join(id),
        tools: shared::tools::NAMES.map(str::to_owned).to_vec(),
        time_zone: "UTC".to_owned(),
        limits: TurnLimits::default(),
        resources: Resources { memory: Some(memory), cpu: Some(cpu) },
    }
}

fn anthropic() -> ProviderConfig {
    ProviderConfig {
        api: ProviderApi::AnthropicMessages,
        base_url: "https://api.anthropic.com".to_owned(),
        api_key: Some(Secret::new("sk-ant-1")),
        headers: BTreeMap::new(),
        connect_timeout: Duration::from_secs(10),
        read_timeout: Duration::from_secs(300),
        max_attempts: 3,
        models: BTreeMap::new(),
    }
}

#[test]
fn the_guides_agent_farm_loads_unchanged() {
    const MIB: u64 = 1 << 20;
    let retired = "the vendor has retired anthropic/claude-sonnet-4-20250514; if it answers that it has no such model, \
                   name a current one";
    let expected = Config {
        gateway: GatewayConfig { listen: SocketAddr::from(([0, 0, 0, 0], 18_789)), ..GatewayConfig::default() },
        agents: vec![
            farm_agent("email-manager", "メール管理者", 2048 * MIB, 2.0),
            farm_agent("calendar-manager", "スケジュール管理者", 1536 * MIB, 1.5),
            farm_agent("doc-processor", "ドキュメントプロセッサ", 3072 * MIB, 2.5),
            farm_agent("data-analyst", "データアナリスト", 4096 * MIB, 3.0),
        ],
        default_agent: 0,
        providers: BTreeMap::from([("anthropic".to_owned(), anthropic())]),
        turns: TurnConfig::default(),
        hooks: HooksConfig::default(),
        time_zone: "UTC".to_owned(),
        warnings: vec![
            format!("agents[0].model: {retired}"),
            format!("agents[1].model: {retired}"),
            format!("agents[2].model: {retired}"),
            format!("agents[3].model: {retired}"),
            "gateway.cluster: accepted, not used yet: this one process is gateway and agents itself, whatever its mode \
             (agent) and primary (SERVER-1-IP:18789) say"
                .to_owned(),
        ],
    };
    assert_eq!(load(FARM), expected);
}

#[test]
fn a_missing_key_stops_the_start_with_its_path_and_the_remedy() {
    assert_eq!(
        problems_with(FARM, &nothing),
        [
            "models.providers.anthropic.apiKey: is missing, and agents[0].model needs it; set ANTHROPIC_API_KEY in the \
          environment or this key in the file, or try Reef without a vendor by `--demo`"
        ]
    );
}

#[test]
fn settings_can_be_looked_at_where_no_key_is() {
    let written = FARM.replacen('{', r#"{models: {providers: {anthropic: {apiKey: "${NOT_SET}"}}},"#, 1);
    for text in [FARM, &written] {
        let config = Config::inspect(text, Path::new("/etc/reef"), &nothing).unwrap();
        let expected = ProviderConfig { api_key: None, ..anthropic() };
        assert_eq!(config.providers, BTreeMap::from([("anthropic".to_owned(), expected)]));
        assert_eq!(config.agents, load(FARM).agents);
    }
}

#[test]
fn demo_puts_every_agent_on_the_demo_model_and_leaves_no_other_provider() {
    let text = r#"{
        agents: {
            defaults: {model: {primary: "openai/gpt-x", fallbacks: ["antropic/typo"]}},
            entries: {a: {}, b: {model: "anthropic/claude-x"}},
        },
        models: {providers: {openai: {apiKey: "${NOT_SET}"}}},
    }"#;
    let config = Config::load(text, Path::new("/etc/reef"), &nothing, true).unwrap();
    let demo = "demo/echo".parse::<ModelRef>().unwrap();
    let models: Vec<_> = config.agents.iter().map(|agent| (&agent.model, agent.fallbacks.len())).collect();
    assert_eq!(models, [(&demo, 0), (&demo, 0)]);
    let providers: Vec<_> =
        config.providers.iter().map(|(id, provider)| (id.as_str(), provider.api)).collect();
    assert_eq!(providers, [("demo", ProviderApi::Demo)]);
}

/// The same two agents in a dialect: what stands around them differs.
fn dialect(agents: &str) -> String {
    let models = r#"models: {providers: {openai: {baseUrl: "http://127.0.0.1:9/v1/", timeoutSeconds: 0.5}}}"#;
    format!("{{ agents: {agents}, {models} }}")
}

#[test]
fn all_three_dialects_mean_the_same() {
    let zoe = r#"name: "Zoe", model: "openai/gpt-x", workspace: {root: "zoe"}, timeoutSeconds: 30"#;
    let adam = r#"model: {primary: "openai/gpt-x", fallbacks: ["anthropic/claude-x"]}, workspace: "/srv/adam",
                  tools: {deny: ["write", "append"]}, timeZone: "Asia/Tokyo""#;
    let guide = load(&dialect(&format!(r#"[{{id: "zoe", {zoe}}}, {{id: "adam", {adam}}}]"#)));
    let list = load(&dialect(&format!(r#"{{list: [{{id: "zoe", {zoe}}}, {{id: "adam", {adam}}}]}}"#)));
    let entries = load(&dialect(&format!("{{entries: {{zoe: {{{zoe}}}, adam: {{{adam}}}}}}}")));
    assert_eq!(guide, list);
    assert_eq!(guide, entries);
    assert_eq!(guide.default_agent().id.as_str(), "zoe", "the first of the file, not of the alphabet");
    assert_eq!(guide.agents[1].tools, ["current_time", "ls", "read"]);
    let openai = &guide.providers["openai"];
    assert_eq!(
        (openai.base_url.as_str(), openai.read_timeout),
        ("http://127.0.0.1:9/v1", Duration::from_millis(500))
    );
    assert_eq!(
        openai.api_key,
        Some(Secret::new("sk-openai-1")),
        "a variable's line feed is no part of the key"
    );
}

#[test]
fn defaults_hold_for_agents_that_say_nothing_else() {
    let config = load(
        r#"{
            timeZone: "Europe/Berlin",
            tools: {allow: ["current_time", "read"]},
            agents: {
                defaults: {
                    model: "anthropic/claude-x", workspace: "~/farm", userTimezone: "Asia/Tokyo", timeoutSeconds: 60,
                    limits: {steps: 3}, resources: {memory: "1GB"},
                },
                entries: {
                    one: {},
                    two: {limits: {seconds: 5, tokens: 100}, resources: {cpu: 0.5}, tools: [], timeZone: "UTC"},
                },
            },
        }"#,
    );
    let one = Agent {
        id: AgentId::new("one"),
        name: "one".to_owned(),
        description: None,
        model: "anthropic/claude-x".parse().unwrap(),
        fallbacks: Vec::new(),
        workspace: "/home/reef/farm".into(),
        tools: vec!["current_time".to_owned(), "read".to_owned()],
        time_zone: "Asia/Tokyo".to_owned(),
        limits: TurnLimits { steps: 3, wall: Duration::from_secs(60), ..TurnLimits::default() },
        resources: Resources { memory: Some(1 << 30), cpu: None },
    };
    let two = Agent {
        id: AgentId::new("two"),
        name: "two".to_owned(),
        workspace: "/home/reef/farm-two".into(),
        tools: Vec::new(),
        time_zone: "UTC".to_owned(),
        limits: TurnLimits { steps: 3, wall: Duration::from_secs(5), tokens: 100 },
        resources: Resources { memory: Some(1 << 30), cpu: Some(0.5) },
        ..one.clone()
    };
    assert_eq!(config.agents, [one, two]);
    assert_eq!(config.time_zone, "Europe/Berlin");
}

#[test]
fn our_own_settings_are_read() {
    let config = load(
        r#"{
            agents: [{id: "a", model: "demo/echo"}],
            gateway: {
                port: 0, bind: "custom", customBindHost: "::1", trustedProxies: ["10.0.0.5", "192.168.0.0/16"],
                rateLimit: {perSecond: 2.5, burst: 0, bytesPerRequest: 9}, tls: "inFront", maxBodyBytes: 4096, heartbeatSeconds: 0.05,
                drainSeconds: 0, maxConnections: 7, maxConnectionsPerAddress: 3, writeTimeoutSeconds: 0.5,
                memoryBudget: "300MB",
            },
            turns: {
                leaseSeconds: 0.5, maxWaiting: 1, waitSeconds: 0.1, windowMessages: 10, keepMessages: 2,
                workerConcurrency: 3, jobMaxAttempts: 2,
            },
            hooks: {allowRequestSessionKey: false, allowedSessionKeyPrefixes: ["hook:"], allowedAgentIds: ["a"]},
        }"#,
    );
    assert_eq!(
        config.gateway,
        GatewayConfig {
            listen: "[::1]:0".parse().unwrap(),
            limit: Limit { per_second: 2.5, burst: 0 },
            bytes_per_request: 9,
            max_body_bytes: 4096,
            max_connections: 7,
            max_connections_per_address: 3,
            write_timeout: Duration::from_millis(500),
            memory_budget: Some(300 * 1024 * 1024),
            trusted_proxies: vec!["10.0.0.5/32".parse().unwrap(), "192.168.0.0/16".parse().unwrap()],
            tls_in_front: true,
            hsts: Hsts::WithTls,
            heartbeat: Duration::from_millis(50),
            drain: Duration::ZERO,
        }
    );
    assert_eq!(
        config.turns,
        TurnConfig {
            lease: Duration::from_millis(500),
            max_waiting: 1,
            max_wait: Duration::from_millis(100),
            window_messages: 10,
            keep_messages: 2,
            worker_concurrency: 3,
            job_max_attempts: 2,
        }
    );
    assert_eq!(
        config.hooks,
        HooksConfig {
            allow_request_session_key: false,
            allowed_session_key_prefixes: vec!["hook:".to_owned()],
            allowed_agents: Some(vec![AgentId::new("a")]),
        }
    );
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn the_bind_words_name_addresses() {
    let listen = |bind: &str| {
        let config =
            load(&format!(r#"{{agents: [{{id: "a", model: "demo/echo"}}], gateway: {{bind: "{bind}"}}}}"#));
        config.gateway.listen.to_string()
    };
    assert_eq!(
        ["all", "lan", "loopback", "auto"].map(listen),
        ["0.0.0.0:18789", "0.0.0.0:18789", "127.0.0.1:18789", "127.0.0.1:18789"]
    );
}

#[test]
fn every_problem_is_told_at_once_with_its_path() {
    let text = r#"{
        agents: [
            {id: "ok", model: "demo/echo", tools: ["raed"], timeZone: "Asia/Tokio"},
            {id: "Email Manager", model: "claude"},
            {id: "ok", model: "antropic/claude-x", resources: {memory: "2XB", cpu: "two"}},
            {model: {fallbacks: ["demo/echo"]}, workspace: {}, nmae: "x"},
            {id: "five", limits: {steps: -3}},
            "six",
        ],
        gateway: {port: 70000, bind: "custom", trustedProxies: ["10.0.0.0/33"], tls: {enabled: true}, prot: 1},
        turns: {keepMessages: 200},
        timeZone: "Mars/Olympus",
        models: {providers: {mine: {api: "grpc", apiKey: "a b"}, demo: {}}},
    }"#;
    let ids = "1 to 64 of a-z, 0-9, `_` and `-`, the first a letter or digit";
    assert_eq!(problems(text), [
        "agents[3].nmae: unknown key; did you mean `name`?".to_owned(),
        "agents[4].limits.steps: must be from 1 to 10000, not -3".to_owned(),
        "agents[5]: must be an object, not \"six\"".to_owned(),
        "gateway.port: must be from 0 to 65535, not 70000".to_owned(),
        "gateway.prot: unknown key; did you mean `port`?".to_owned(),
        "gateway.tls: must be one of none, inFront, not an object".to_owned(),
        "models.providers.mine.api: must be one of anthropic-messages, openai-completions, ollama, not \
         \"grpc\""
            .to_owned(),
        "timeZone: unknown time zone \"Mars/Olympus\"; write an IANA name, e.g. \"Asia/Tokyo\"".to_owned(),
        "agents[0].tools[0]: unknown tool \"raed\"; known are append, current_time, ls, read, write; did you mean \
         `read`?"
            .to_owned(),
        "agents[0].timeZone: unknown time zone \"Asia/Tokio\"; write an IANA name, e.g. \"Asia/Tokyo\"".to_owned(),
        format!("agents[1].id: \"Email Manager\" is not an agent's id: {ids}"),
        "agents[1].model: \"claude\" is not of the form provider/model, e.g. \"ollama/llama3.2\"".to_owned(),
        "agents[2].id: \"ok\" is already the id of agents[0]".to_owned(),
        "agents[2].model: unknown provider \"antropic\"; known are anthropic, demo, lmstudio, mine, ollama, openai, \
         vllm; add models.providers.antropic or correct the name"
            .to_owned(),
        "agents[2].resources.memory: \"2XB\" is not an amount of memory; write e.g. \"512MB\" or \"1.5GB\"".to_owned(),
        "agents[2].resources.cpu: \"two\" is not a number of cores; write e.g. \"2\" or \"1.5\"".to_owned(),
        "agents[3].id: is missing".to_owned(),
        "agents[3].model.primary: is missing".to_owned(),
        "agents[3].workspace.root: is missing; write a folder, e.g. \"./agents/assistant\"".to_owned(),
        "agents[4].model: is missing; write provider/model, e.g. \"ollama/llama3.2\"".to_owned(),
        "models.providers.demo: is the name of the built-in demo model; choose another one".to_owned(),
        "models.providers.mine.apiKey: holds characters that no key has: only visible ASCII without spaces is sent"
            .to_owned(),
        "gateway.customBindHost: is missing; `bind: \"custom\"` needs an IP address".to_owned(),
        "gateway.trustedProxies[0]: \"10.0.0.0/33\" is neither an address nor a network; write e.g. \"10.0.0.5\" or \
         \"10.0.0.0/8\""
            .to_owned(),
        "turns.keepMessages: must be less than windowMessages: 200 of 100".to_owned(),
    ]);
}

/// An agent on the demo model with this in its settings, too.
fn agent_with(id: &str, more: &str) -> String {
    format!(r#"{{id: "{id}", model: "demo/echo", {more}}}"#)
}

#[test]
fn the_agent_with_default_true_answers_requests_that_name_none() {
    let (first, second) = (agent_with("first", ""), agent_with("second", "default: true"));
    let entry = |more: &str| format!(r#"{{model: "demo/echo", {more}}}"#);
    for agents in [
        format!("[{first}, {second}]"),
        format!("{{list: [{first}, {second}]}}"),
        format!("{{entries: {{first: {}, second: {}}}}}", entry(""), entry("default: true")),
    ] {
        let config = load(&format!("{{agents: {agents}}}"));
        assert_eq!(config.default_agent().id.as_str(), "second", "{agents}");
        let order: Vec<_> = config.agents.iter().map(|agent| agent.id.as_str()).collect();
        assert_eq!(order, ["first", "second"], "the order of the file");
        assert_eq!(config.warnings, [""; 0], "it is no setting that is read over");
        assert_eq!(load(&config.show().to_string()).default_agent().id.as_str(), "second");
    }
    let none = load(&format!("{{agents: [{}, {first}]}}", agent_with("zoe", "default: false")));
    assert_eq!(none.default_agent().id.as_str(), "zoe", "without one the first of the file");

    // The agent that is meant has OpenClaw's plain workspace, whichever place it has in the file.
    let folders =
        load(&format!(r#"{{agents: {{defaults: {{workspace: "/srv/agent"}}, list: [{first}, {second}]}}}}"#));
    let folders: Vec<_> = folders.agents.iter().map(|agent| agent.workspace.to_str().unwrap()).collect();
    assert_eq!(folders, ["/srv/agent-first", "/srv/agent"]);
}

#[test]
fn two_agents_with_default_true_are_a_problem() {
    let agents: Vec<_> = ["a", "b", "c"].map(|id| agent_with(id, "default: true")).to_vec();
    let said = "requests that name no agent can go to one only: leave one `true`";
    assert_eq!(
        problems(&format!("{{agents: [{}]}}", agents.join(", "))),
        [
            format!("agents[1].default: is true for agents[0], too; {said}"),
            format!("agents[2].default: is true for agents[0], too; {said}"),
        ]
    );
}

#[test]
fn a_wrong_part_of_a_setting_is_told_once_and_does_not_hide_the_rest() {
    let further = "agents[0].model: \"x\" is not of the form provider/model, e.g. \"ollama/llama3.2\"";
    let with = |settings: &str| problems(&format!(r#"{{agents: [{{id: "a", model: "x"}}], {settings}}}"#));
    assert_eq!(
        with("gateway: {rateLimit: {perSecond: 0, burst: 5}}"),
        ["gateway.rateLimit.perSecond: must be from 0.001 to 1000000, not 0", further]
    );
    assert_eq!(
        with("gateway: {rateLimit: {burst: 5}}"),
        ["gateway.rateLimit.perSecond: is missing", further]
    );
    assert_eq!(
        with(r#"gateway: {rateLimit: {perSecond: "${NOT_SET}", burst: 5}}"#),
        [
            further,
            "gateway.rateLimit.perSecond: the environment variable NOT_SET is not set; set it where Reef starts"
        ]
    );
    // The key is not told to be missing on top of what is wrong with it.
    for (key, problem) in [
        (r#"{source: "env"}"#, "models.providers.anthropic.apiKey.id: is missing"),
        ("99", "models.providers.anthropic.apiKey: must be a text or an object, not what it is"),
    ] {
        let text = format!(
            r#"{{agents: [{{id: "a", model: "anthropic/x"}}], models: {{providers: {{anthropic: {{apiKey: {key}}}}}}}}}"#
        );
        assert_eq!(problems_with(&text, &nothing), [problem], "{key}");
    }
}

#[test]
fn a_protocols_name_that_is_nearly_right_gets_the_names_that_reef_speaks() {
    for (name, hint) in [
        ("openai", "; did you mean `openai-completions`?"),
        ("anthropic", "; did you mean `anthropic-messages`?"),
        ("openai-chat", ""),
        ("olama", "; did you mean `ollama`?"),
    ] {
        let text = format!(
            r#"{{agents: [{{id: "a", model: "k/x"}}], models: {{providers: {{k: {{api: "{name}", baseUrl: "http://127.0.0.1:9"}}}}}}}}"#
        );
        let told = format!(
            "models.providers.k.api: must be one of anthropic-messages, openai-completions, ollama, not \"{name}\"{hint}"
        );
        assert_eq!(problems(&text), [told]);
    }
}

#[test]
fn an_address_in_the_place_of_a_word_is_explained() {
    let text = r#"{agents: [{id: "a", model: "demo/echo"}], gateway: {bind: "0.0.0.0"}}"#;
    let told = "gateway.bind: must be one of all, lan, loopback, auto, custom, not \"0.0.0.0\"; use `custom` with \
                `customBindHost: \"0.0.0.0\"`";
    assert_eq!(problems(text), [told]);
}

#[test]
fn a_file_that_is_no_object_or_has_no_agents_is_told_so() {
    let no_agents = "agents: at least one agent is needed, e.g. agents: [{id: \"assistant\", model: \
                     \"ollama/llama3.2\"}]";
    for empty in ["{}", "{agents: []}", "{agents: {entries: {}}}", "{agents: null}"] {
        assert_eq!(problems(empty), [no_agents], "{empty}");
    }
    assert_eq!(problems("[]")[0], "the file must hold an object, not a list");
    assert!(problems("{agents: [")[0].starts_with("the file is not JSON5: "));
    assert_eq!(problems("{agents: [").len(), 1);
}

#[test]
fn settings_of_openclaw_that_we_do_not_implement_are_named_in_one_warning() {
    let config = load(
        r#"{
            meta: {lastTouchedVersion: "2026.9.6"}, cron: {enabled: true}, channels: {slack: {}},
            gateway: {auth: {mode: "token", token: "x"}, http: {endpoints: {responses: {enabled: false}}}},
            agents: {defaults: {heartbeat: {every: "30m"}}, entries: {main: {model: "demo/echo", identity: {}}}},
            tools: {profile: "minimal", deny: ["exec"]},
        }"#,
    );
    assert_eq!(
        config.warnings,
        [
            "OpenClaw settings that Reef does not implement are read over: agents.defaults.heartbeat, \
         agents.entries.main.identity, channels, cron, gateway.auth, meta, tools.profile",
            "tools.deny[0]: unknown tool \"exec\"; known are append, current_time, ls, read, write",
            "gateway.http.endpoints.responses.enabled: false is not obeyed; a token's scopes say what it may use",
        ]
    );
}

#[test]
fn a_variable_that_is_not_set_matters_only_where_it_is_used() {
    let text = |model: &str| {
        format!(
            r#"{{agents: [{{id: "a", model: "{model}"}}], models: {{providers: {{
                spare: {{baseUrl: "${{SPARE_URL}}", apiKey: {{source: "env", id: "SPARE_KEY"}}}},
            }}}}}}"#
        )
    };
    assert_eq!(load(&text("demo/echo")).providers.keys().collect::<Vec<_>>(), ["demo"]);
    assert_eq!(
        problems(&text("spare/x")),
        [
            "models.providers.spare.baseUrl: the environment variable SPARE_URL is not set; set it where Reef starts",
            "models.providers.spare.apiKey: the environment variable SPARE_KEY is not set; set it where Reef starts",
        ]
    );
}

#[test]
fn the_environment_moves_a_built_in_provider_and_the_file_moves_it_again() {
    let env = |name: &str| match name {
        "ANTHROPIC_BASE_URL" => Some("http://127.0.0.1:1/v1".to_owned()),
        "OLLAMA_BASE_URL" => Some("http://10.0.0.1:11434/v1".to_owned()),
        other => keys(other),
    };
    let text = r#"{
        agents: [{id: "a", model: {primary: "anthropic/x", fallbacks: ["ollama/x"]}}],
        models: {providers: {ollama: {
            api: "ollama", baseUrl: "http://127.0.0.1:2", models: [{id: "x", name: "X", contextWindow: 4096}],
        }}},
    }"#;
    let config = Config::load(text, Path::new("/"), &env, false).unwrap();
    assert_eq!(config.providers["anthropic"].base_url, "http://127.0.0.1:1");
    assert_eq!(config.providers["ollama"].base_url, "http://127.0.0.1:2/v1");
    assert_eq!(
        config.providers["ollama"].models,
        BTreeMap::from([("x".to_owned(), ModelInfo { context_window: 4096, max_tokens: 4096 })])
    );
}

#[test]
fn what_is_shown_has_no_secret_and_loads_to_the_same_settings() {
    let text = r#"{
        agents: [{id: "a", description: "Does it", model: "mine/x", resources: {memory: "1.5GB", cpu: "0.5"}}],
        models: {providers: {mine: {
            baseUrl: "https://name:hunter2@example.com/v1", apiKey: "sk-hunter2", headers: {"X-Key": "hunter2"},
        }}},
        turns: {leaseSeconds: 0.5},
    }"#;
    let config = load(text);
    let shown = config.show();
    assert!(!shown.to_string().contains("hunter2"), "{shown}");
    assert!(!format!("{config:?}").contains("sk-hunter2"));
    assert_eq!(
        shown["models"]["providers"]["mine"],
        json!({
            "api": "openai-completions",
            "baseUrl": "https://[redacted]@example.com/v1",
            "apiKey": "[redacted]",
            "headers": {"X-Key": "[redacted]"},
            "timeoutSeconds": 300,
            "connectTimeoutSeconds": 10,
            "maxAttempts": 3,
            "models": [],
        })
    );

    let again = load(&load(FARM).show().to_string());
    let secret = |mut config: Config| {
        config.providers.values_mut().for_each(|provider| provider.api_key = None);
        config.warnings.clear();
        config
    };
    assert_eq!(secret(again), secret(load(FARM)));
}

#[test]
fn the_checked_in_schema_is_the_one_of_this_code() {
    let checked_in: Value = serde_json::from_str(SCHEMA).unwrap();
    assert!(
        checked_in == json_schema(),
        "the file's shape changed; run: cargo run -q -- config schema > shared/openclaw.schema.json"
    );
}

#[test]
fn the_shipped_agents_ask_models_that_their_vendor_still_serves() {
    const SHIPPED: &str = include_str!("../infra/agents/openclaw.json");
    assert_eq!(load(SHIPPED).warnings, Vec::<String>::new());
}
