//! Does the command line explain itself, and the packets?

mod node;

use std::process::Command;

use node::{Node, Pod, possible, wait_for_ping};

fn millrace(words: &str) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_millrace")).args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help_when_asked_has_examples() {
    for words in ["--help", "switch --help", "get --help", "trace --help", "top --help"] {
        assert!(millrace(words).contains("Example"), "{words}");
    }
}

#[test]
fn completions_when_printed_know_the_subcommands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = millrace(&format!("completions {shell}"));
        assert!(script.contains("attachments") && script.contains("trace"), "{shell}");
    }
}

#[test]
fn trace_when_a_packet_is_described_says_where_it_goes() {
    if !possible("trace_when_a_packet_is_described_says_where_it_goes") {
        return;
    }
    let node = Node::start();
    let (a, b) = (Pod::new("a"), Pod::new("b"));
    node.add(&a, "pods");
    let at_b = node.add(&b, "pods");
    let ports = node.get("ports");
    let name = |number: usize| ports["ports"][number]["name"].as_str().unwrap().to_owned();
    let run = |words: &str| {
        let output = node.cli(words);
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let told = run(&format!("trace --port {} --to {} --tcp 40000,80", name(0), at_b.ipv4()));
    assert!(told.contains(&format!("\n  Sent to {}: TCP from ", name(1))), "{told}");
    let told = run(&format!("trace --port {} --from 02:ff:ff:ff:ff:ff --to {}", name(0), at_b.ipv4()));
    assert!(told.contains("Dropped (spoofed_mac)"), "{told}");

    wait_for_ping(&a, at_b.ipv4());
    assert!(run("get ports").contains(&name(0)));
    assert!(run("get flows").contains("MATCH"));
    assert!(run("get stations").contains(at_b.interface("mac")));
    assert!(run("get attachments").contains("eth0"));
    assert!(run("get networks").contains("10.1.0.0/16"));
    assert!(run("top --once --interval 0.1").contains(&name(1)));
    node.assert_ledger_balances();
}
