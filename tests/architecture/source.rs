//! A source file as the rules see it: which paths it names, which types it declares, how long it is.

use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use syn::visit::{self, Visit};

/// One file of a crate.
pub(crate) struct SourceFile {
    /// Its module's path within the crate; empty for the crate's root.
    pub(crate) module: String,
    /// Every path it names, in full: `crate::…` for its own crate, else beginning with a crate's name. Tests left out.
    pub(crate) paths: BTreeSet<String>,
    /// Types and traits it declares.
    pub(crate) types: Vec<String>,
    /// Its length.
    pub(crate) lines: usize,
}

/// `http/auth.rs` is `http::auth`; `lib.rs` and `main.rs` are the root.
pub(crate) fn module_of(path: &Path) -> String {
    let text = path.with_extension("").to_string_lossy().replace('/', "::");
    if text == "lib" || text == "main" { String::new() } else { text }
}

impl SourceFile {
    /// Reads a file's text.
    pub(crate) fn parse(module: &str, text: &str) -> Self {
        let syntax = syn::parse_file(text).unwrap_or_else(|error| panic!("{module}: {error}"));
        let here =
            if module.is_empty() { Vec::new() } else { module.split("::").map(str::to_owned).collect() };
        let mut reader = Reader { here, raw: Vec::new(), aliases: BTreeMap::new(), types: Vec::new() };
        reader.visit_file(&syntax);
        let Reader { raw, aliases, types, .. } = reader;
        let paths = raw.into_iter().filter_map(|path| in_full(path, &aliases)).collect();
        Self { module: module.to_owned(), paths, types, lines: text.lines().count() }
    }
}

/// Types that need no crate.
const PRIMITIVES: [&str; 17] = [
    "bool", "char", "f32", "f64", "i128", "i16", "i32", "i64", "i8", "isize", "str", "u128", "u16", "u32",
    "u64", "u8", "usize",
];

/// A path with its first name resolved through the file's `use` and `mod` lines; `None` for names of its own.
fn in_full(mut path: Vec<String>, aliases: &BTreeMap<String, Vec<String>>) -> Option<String> {
    let mut imported = false;
    // An alias may lead to another: `mod auth; use auth::Credentials;`. Names that mean themselves end it.
    for _ in 0..aliases.len() {
        match path.split_first() {
            Some((first, rest)) if aliases.get(first).is_some_and(|meant| meant.first() != Some(first)) => {
                path = [aliases[first].as_slice(), rest].concat();
                imported = true;
            }
            _ => break,
        }
    }
    let first = path.first()?;
    // One name alone is local, a type in scope, or a macro; a path that begins with a type is its item.
    let foreign = first.starts_with(char::is_lowercase) && !PRIMITIVES.contains(&first.as_str());
    (imported || path.len() > 1 && foreign).then(|| path.join("::"))
}

struct Reader {
    here: Vec<String>,
    raw: Vec<Vec<String>>,
    aliases: BTreeMap<String, Vec<String>>,
    types: Vec<String>,
}

impl Reader {
    /// `self`, `super` and `crate` as a path from the crate's root.
    fn in_the_crate(&self, path: Vec<String>) -> Vec<String> {
        let mut here = self.here.clone();
        let mut rest = path.as_slice();
        let mut relative = false;
        while let Some((first, others)) = rest.split_first() {
            match first.as_str() {
                "self" => {}
                "super" => {
                    here.pop();
                }
                _ => break,
            }
            relative = true;
            rest = others;
        }
        if relative { [&["crate".to_owned()], here.as_slice(), rest].concat() } else { path }
    }

    fn add(&mut self, path: Vec<String>) {
        let path = self.in_the_crate(path);
        self.raw.push(path);
    }

    fn add_use(&mut self, tree: &syn::UseTree, before: &[String]) {
        match tree {
            syn::UseTree::Path(path) => {
                self.add_use(&path.tree, &[before, &[path.ident.to_string()]].concat());
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.add_use(item, before)),
            syn::UseTree::Glob(_) => self.add(before.to_vec()),
            syn::UseTree::Name(name) => {
                let name = name.ident.to_string();
                let path = if name == "self" { before.to_vec() } else { [before, &[name]].concat() };
                self.add_alias(path.last().cloned(), path);
            }
            syn::UseTree::Rename(rename) => {
                let name = rename.ident.to_string();
                let path = if name == "self" { before.to_vec() } else { [before, &[name]].concat() };
                self.add_alias(Some(rename.rename.to_string()), path);
            }
        }
    }

    fn add_alias(&mut self, name: Option<String>, path: Vec<String>) {
        let path = self.in_the_crate(path);
        if let Some(name) = name {
            self.aliases.insert(name, path.clone());
        }
        self.raw.push(path);
    }

    /// Paths among a macro's tokens, which the parser leaves alone.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        let done = std::mem::take(&mut path);
                        self.add(done);
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    let done = std::mem::take(&mut path);
                    self.add(done);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.add_tokens(group.stream());
                    }
                }
            }
        }
        self.add(path);
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.add_use(&item.tree, &[]);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.add_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        let lint =
            ["allow", "deny", "expect", "forbid", "warn"].iter().any(|name| attribute.path().is_ident(name));
        if let syn::Meta::List(list) = &attribute.meta
            && !lint
        {
            self.add_tokens(list.tokens.clone());
        }
        visit::visit_attribute(self, attribute);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            let name = item.ident.to_string();
            let path = [&["crate".to_owned()], self.here.as_slice(), std::slice::from_ref(&name)].concat();
            self.aliases.insert(name.clone(), path);
            self.here.push(name);
            visit::visit_item_mod(self, item);
            self.here.pop();
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !is_test(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.types.push(item.ident.to_string());
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.types.push(item.ident.to_string());
        visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.types.push(item.ident.to_string());
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.types.push(item.ident.to_string());
        visit::visit_item_type(self, item);
    }
}
