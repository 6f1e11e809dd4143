//! What is named, in tables; and that no text does harm.

use super::*;
use proptest::prelude::*;

fn list(text: &str) -> Result<Vec<HostSpec>, HostsError> {
    let mut hosts = HostList::new();
    hosts.add(text, "--hosts")?;
    Ok(hosts.into_hosts())
}

fn names(text: &str) -> Vec<String> {
    let hosts = list(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    hosts.into_iter().map(|host| host.name).collect()
}

fn file(text: &str) -> Result<Vec<HostSpec>, HostsError> {
    let mut hosts = HostList::new();
    hosts.add_file_bytes(text.as_bytes(), Path::new("hosts.txt"))?;
    Ok(hosts.into_hosts())
}

/// What is said of something wrong.
fn said(result: Result<Vec<HostSpec>, HostsError>) -> String {
    result.expect_err("is taken").to_string()
}

#[test]
fn hosts_are_named_in_order_and_once() {
    for (text, expected) in [
        ("a,b:4,user@c", "a b user@c"),
        ("[fe80::1%eth0]:2", "fe80::1%eth0"),
        ("node[001-016,020]:8", &{
            let numbers = (1..=16).chain([20]);
            numbers.map(|number| format!("node{number:03}")).collect::<Vec<_>>().join(" ")
        }),
        // Empties and duplicates, blanks and line ends.
        (" a, ,b,,a:3 ,\tc\r\n", "a b c"),
        ("", ""),
        (",", ""),
        ("a b\nc", "a b c"),
        ("b,a,b:2,a", "b a"),
        // One user's a is not another's, nor is one server's.
        ("a,u@a,v@a,u@a:4,ssh://a:22,ssh://a", "a u@a v@a ssh://a:22"),
        // Addresses are whole, and one however they are written.
        ("10.0.0.1:4,10.0.0.2", "10.0.0.1 10.0.0.2"),
        ("fe80::1,fe80::2,::1", "fe80::1 fe80::2 ::1"),
        ("fe80::1%eth0,fe80::1%eth1,[fe80::1%eth0]", "fe80::1%eth0 fe80::1%eth1"),
        ("::1,0:0:0:0:0:0:0:1,[0::1]:4,::0001", "::1"),
        ("fe80::1:4,2001:db8::a:b", "fe80::1:4 2001:db8::a:b"),
        ("u@[::1]:2,u@fe80::1%eth0.7", "u@::1 u@fe80::1%eth0.7"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1"),
        // Ports.
        (
            "ssh://a:2222,ssh://u@a:2222,ssh://[::1]:2222,ssh://u@[fe80::1%e0]:1",
            "ssh://a:2222 ssh://u@a:2222 ssh://[::1]:2222 ssh://u@[fe80::1%e0]:1",
        ),
        ("ssh://u@n[1-2]:22", "ssh://u@n1:22 ssh://u@n2:22"),
        ("ssh://u@a,ssh://[::1]", "u@a ::1"),
        // Users with a domain.
        ("me@example.org@a", "me@example.org@a"),
        // OpenMPI's "as many as there are".
        ("a:*", "a"),
        // Lists.
        ("n[9-11]", "n9 n10 n11"),
        ("n[09-11]", "n09 n10 n11"),
        ("n[08-11,3]x", "n08x n09x n10x n11x n3x"),
        ("n[98-101]", "n98 n99 n100 n101"),
        ("n[098-101]", "n098 n099 n100 n101"),
        ("n[09-101]", &(9..=101).map(|n| format!("n{n:02}")).collect::<Vec<_>>().join(" ")),
        ("n[0-2]", "n0 n1 n2"),
        ("n[00]", "n00"),
        ("n[7]", "n7"),
        ("r[1-2]n[01-02].x", "r1n01.x r1n02.x r2n01.x r2n02.x"),
        ("n[1,a[1-2],b]", "n1 na1 na2 nb"),
        ("n[[1-2],[2-3]]", "n1 n2 n3"),
        ("n[ 1 , 2 ]", "n1 n2"),
        ("[1-2].a,[x,y]", "1.a 2.a x y"),
        ("10.0.[0-1].[1-2]", "10.0.0.1 10.0.0.2 10.0.1.1 10.0.1.2"),
        ("fe80::[1-2]", "fe80::1 fe80::2"),
        ("n-[1-2]-e", "n-1-e n-2-e"),
        ("n[1-3],n[2-4]", "n1 n2 n3 n4"),
        ("n1-2,a.b.,_x,A,a", "n1-2 a.b. _x A a"),
    ] {
        assert_eq!(names(text).join(" "), expected, "{text:?}");
    }
}

#[test]
fn the_parts_of_a_host_are_apart() {
    let [spec] = &list("ssh://u@[fe80::1%eth0]:2222").unwrap()[..] else { panic!("not one") };
    assert_eq!(spec.user.as_deref(), Some("u"));
    assert_eq!((spec.host.as_str(), spec.port), ("fe80::1%eth0", Some(2222)));
    assert_eq!(spec.address(), Some(("fe80::1".parse().unwrap(), Some("eth0"))));
    let [spec] = &list("a:4").unwrap()[..] else { panic!("not one") };
    assert_eq!((&spec.user, spec.host.as_str(), spec.port), (&None, "a", None));
    assert_eq!(spec.address(), None);
    let json = serde_json::to_string(&list("u@a,ssh://[::1]:7").unwrap()).unwrap();
    assert_eq!(json, r#"["u@a","ssh://[::1]:7"]"#);
    let read: Vec<HostSpec> = serde_json::from_str(&json).unwrap();
    assert_eq!(read, list("u@a,ssh://[::1]:7").unwrap());
    assert!(serde_json::from_str::<HostSpec>(r#""-oProxyCommand=x""#).is_err());
    assert!(serde_json::from_str::<HostSpec>(r#""n[1-2]""#).is_err());
}

#[test]
fn what_is_no_host_is_named_with_its_place() {
    for (text, expected) in [
        ("a,-b", r#"--hosts, entry 2: "-b": "-" cannot begin the name of a host"#),
        ("-oProxyCommand=x", r#"entry 1: "-oProxyCommand=x": "=" cannot stand in"#),
        ("-l@a", r#""-" cannot begin the name of a user"#),
        (".a", r#""." cannot begin"#),
        ("a;b", r#""a;b": ";" cannot stand in the name of a host"#),
        ("$(id)", "\"$\" cannot stand"),
        ("a`id`", "\"`\" cannot stand"),
        ("u$x@a", "\"$\" cannot stand in the name of a user"),
        ("u:secret@a", "\":\" cannot stand in the name of a user"),
        ("a|b", "\"|\" cannot stand"),
        ("a\u{1}b", r#""a\u{1}b": "\u{1}" cannot stand"#),
        ("a\0", "cannot stand"),
        ("a\u{202e}b", "cannot stand"),
        ("bücher", "\"ü\" cannot stand"),
        ("a%b", "\"%\" cannot stand"),
        ("a/b", "\"/\" cannot stand"),
        ("a\\b", "cannot stand"),
        ("a'b", "cannot stand"),
        ("a{1,2}", "\"{\" cannot stand"),
        ("^a", "\"^\" cannot"),
        ("+n2", "\"+\" cannot"),
        ("@", "there is no host"),
        ("u@", "there is no host"),
        ("@a", "there is no host"),
        (":4", "there is no host"),
        ("a:", "\"\" is no number of slots"),
        ("a:x", "\"x\" is no number of slots; a port is given as ssh://host:2222"),
        ("a:-1", "no number of slots"),
        ("a:4:5", "\"a:4:5\" is no IPv6 address"),
        ("fe80::1::2", "is no IPv6 address; with a slot count"),
        ("fe80::1%eth0:4", "is no IPv6 address"),
        ("fe80::1%", "is no IPv6 address"),
        ("fe80::1%a;b", "is no IPv6 address"),
        ("fe80::1%abcdefghijklmnop", "is no IPv6 address"),
        ("[fe80::1", "a [ is not closed"),
        ("[fe80::1]2", "is no IPv6 address"),
        ("[fe80::1,fe80::2]", "is no IPv6 address"),
        ("[a:4]", "\"a:4\" is no IPv6 address"),
        ("1:2:3:4:5:6:7:8:9", "is no IPv6 address"),
        ("010.0.0.1", "is a number but no IPv4 address"),
        ("10.0.0.[001-003]", "\"10.0.0.001\" is a number but no IPv4 address"),
        ("10.0.0.256", "no IPv4 address"),
        ("a,4", "\"4\" is a number"),
        ("ssh://a:0", "\"0\" is no port (1 to 65535)"),
        ("ssh://a:65536", "no port"),
        ("ssh://a:+1", "no port"),
        ("ssh://a:", "\"\" is no port"),
        ("ssh://fe80::1", "stands in brackets"),
        ("ssh://a/", "\"/\" cannot stand"),
        ("ssh://", "there is no host"),
        ("http://a", "only ssh:// may stand before a host"),
        ("n[1-2", "a [ is not closed"),
        ("n1]", "a ] closes nothing"),
        ("n]1-2[", "a ] closes nothing"),
        ("n[]", "nothing stands between"),
        ("n[1,,2]", "nothing stands between"),
        ("n[1-]", "\"1-\" is not a range; one is written 1-16 or 001-016"),
        ("n[-1]", "\"-1\" is not a range"),
        ("n[1-2-3]", "is not a range"),
        ("n[a-c]", "\"a-c\" is not a range"),
        ("n[a-[1-2]]", "is not a range"),
        ("n[1-0x5]", "is not a range"),
        ("n[1-99999999999999999999]", "is not a range"),
        ("n[5-3]", "the range \"5-3\" goes backwards"),
        ("n[001-16]", "\"001-16\" has its zeros on one side only"),
        ("n[1-016]", "zeros on one side"),
        ("n[[[[[1]]]]]", "more than 4 deep"),
        ("n[1-65537]", "more than 65536 hosts"),
        ("n[1-256][1-257]", "more than 65536 hosts"),
        ("n[1-40000],m[1-40000]", "entry 2: \"m[1-40000]\": more than 65536 hosts"),
        ("n[1-999999999999999999][1-999999999999999999]", "more than 65536 hosts"),
        ("n[1-3/2]", "is not a range"),
    ] {
        let said = said(list(text));
        assert!(said.contains(expected), "{text:?}: {said}");
        assert!(!said.chars().any(char::is_control), "{said:?}");
    }
    let long = "a".repeat(256);
    assert!(said(list(&long)).contains("at most 255 characters"));
    assert!(said(list(&format!("n[{long},b]"))).contains("at most 255"));
    assert!(said(list(&format!("{}@a", "u".repeat(129)))).contains("of a user 128"));
    assert!(said(list(&long)).len() < 250, "what is shown is cut");
}

#[test]
fn as_many_hosts_as_there_may_be() {
    let all = list("n[00001-65536]").unwrap();
    assert_eq!((all.len(), all[0].name.as_str()), (MAX_HOSTS, "n00001"));
    // The same ones again are no more.
    assert_eq!(list("n[1-65536],n[1-65536]:4").unwrap().len(), MAX_HOSTS);
    assert!(said(list(&"n[1-65536],".repeat(17))).contains("entry 17"));
}

#[test]
fn a_hostfile_has_one_host_a_line() {
    let text = "\u{feff}# all of them\r\n\r\n  a slots=4 max_slots=8\r\nb:4\tslots = 2 # half\n\
        c#d\n# e\n\tuser@f  \nnode[01-02, 04]:2 slots=1\n[fe80::1%eth0]:2\n::1\n\
        g user=me port=2222\nssh://h:22\ni username=me\nj,k\na\n\nlast";
    let names: Vec<String> = file(text).unwrap().into_iter().map(|host| host.name).collect();
    let expected = "a b c user@f node01 node02 node04 fe80::1%eth0 ::1 ssh://me@g:2222 \
        ssh://h:22 me@i j k last";
    assert_eq!(names.join(" "), expected);
    assert_eq!(file("a\rb\r").unwrap().len(), 2);
    assert_eq!(file("").unwrap(), []);
    for (text, expected) in [
        ("a\n\nb c\n", "hosts.txt, line 3: \"b c\": \"c\" is not understood here; a line is: HOST"),
        ("a 4", "\"4\" is not understood"),
        ("a\nb weight=3", "line 2: \"b weight=3\": \"weight=3\" is not understood"),
        ("a slots=", "\"slots=\" is not understood"),
        ("slots=4", "\"slots=4\": \"=\" cannot stand"),
        ("u@a user=b", "its user is given twice"),
        ("a user=b user=c", "its user is given twice"),
        ("ssh://a:1 port=2", "its port is given twice"),
        ("a port=ssh", "\"ssh\" is no port"),
        ("a user=-x", "\"-\" cannot begin the name of a user"),
        ("# x\n\n\n-b", "line 4: \"-b\""),
        ("a\nn[1-2\n3]", "line 2: \"n[1-2\": a [ is not closed"),
    ] {
        let said = said(file(text));
        assert!(said.contains(expected), "{text:?}: {said}");
    }
    let mut hosts = HostList::new();
    let wrong = hosts.add_file_bytes(b"a\nb\n\xff\n", Path::new("f")).unwrap_err();
    assert_eq!(wrong.to_string(), "f is not a hostfile: line 3 is not UTF-8");
}

#[test]
fn a_hostfile_is_read_up_to_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hosts");
    std::fs::write(&path, "a\nb slots=2\n").unwrap();
    let mut hosts = HostList::new();
    hosts.add("b,c", "--hosts").unwrap();
    hosts.add_file(&path).unwrap();
    let names: Vec<String> = hosts.into_hosts().into_iter().map(|host| host.name).collect();
    assert_eq!(names, ["b", "c", "a"]);
    let wrong = HostList::new().add_file(Path::new("/dev/zero")).unwrap_err().to_string();
    assert_eq!(wrong, "/dev/zero is not a hostfile: it has more than 16777216 bytes");
    let wrong = HostList::new().add_file(&dir.path().join("none")).unwrap_err().to_string();
    assert!(wrong.starts_with("cannot read the hostfile ") && wrong.contains("none: "), "{wrong}");
}

/// What an attacker would put together.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-c0-9:@%,.=\\[\\]/# \\r\\n-]{0,60}",
        "(ssh://)?([a-z]{1,3}@)?[a-z]{1,2}(\\[[0-9,a-]{1,7}\\]){0,3}(:[0-9*]{1,3})?",
        "\\[?[0-9a-f:]{2,20}(%[a-z0-9]{1,5})?\\]?(:[0-9]{1,6})?",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_does_harm(text in texts()) {
        check_list(list(&text))?;
        check_list(file(&text))?;
    }

    #[test]
    fn a_pattern_stands_for_as_many_names_as_it_says(
        text in "[a-z]{0,3}(\\[[1-9]{1,2}-9[0-9](,[a-c]{1,2}(\\[[0-4]-[5-9]\\])?){0,3}\\]){0,2}[x-z-]{0,3}"
    ) {
        if let Ok(pattern) = ranges::Pattern::parse(&text) && pattern.count() <= MAX_HOSTS {
            let names = pattern.expand();
            prop_assert_eq!(names.len(), pattern.count());
            prop_assert_eq!(names.iter().map(String::len).max(), Some(pattern.longest()));
        }
    }
}

/// Whatever is taken is clean, and is named by its name.
fn check_list(result: Result<Vec<HostSpec>, HostsError>) -> Result<(), TestCaseError> {
    let hosts = match result {
        Ok(hosts) => hosts,
        Err(error) => {
            prop_assert!(!error.to_string().chars().any(char::is_control), "{error}");
            return Ok(());
        }
    };
    prop_assert!(hosts.len() <= MAX_HOSTS);
    for host in &hosts {
        let known = |c: char| c.is_ascii_alphanumeric() || ".-_+@:%/[]".contains(c);
        prop_assert!(host.name.chars().all(known), "{host:?}");
        for part in host.user.iter().chain([&host.host]) {
            prop_assert!(!part.is_empty() && !part.starts_with('-'), "{host:?}");
        }
        prop_assert_eq!(&host.name.parse::<HostSpec>(), &Ok(host.clone()));
        let again = list(&host.name).unwrap();
        prop_assert_eq!(&again[..], std::slice::from_ref(host));
    }
    Ok(())
}
