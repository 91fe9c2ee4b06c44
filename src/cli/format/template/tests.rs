//! What docker 28.2 prints for these templates (`docker context ls --format`), and what its `inspect` is known to print.

use serde_json::{Map, Value, json};

use super::Template;
use crate::error;

fn row() -> Value {
    json!({"Current": true, "Description": "Current DOCKER_HOST based configuration", "Name": "default", "Error": ""})
}

fn run(text: &str, render: impl Fn(&Template) -> anyhow::Result<String>) -> String {
    match Template::parse(text).and_then(|t| render(&t)) {
        Ok(out) => out,
        Err(e) => format!("! {}", error::chain(&e).strip_prefix("template: :1").unwrap()),
    }
}

/// The second of each pair is the output or, after `! `, the message behind `template: :1`.
const ROW: &[(&str, &str)] = &[
    ("raw }} x\"y", "raw }} x\"y"),
    ("{{.Name | upper}} {{.Current}}", "DEFAULT true"),
    ("{{split .Name \"e\"}}", "[d fault]"),
    ("{{truncate .Name 3}}", "def"),
    ("{{pad .Name 2 3}}x", "  default   x"),
    ("{{pad \"\" 1 1}}x", "x"),
    ("{{title \"foo-bar baz_qux\"}}", "Foo-Bar Baz_qux"),
    ("{{println .Name}}", "default\n"),
    ("{{println \"a\" 1}}|", "a 1\n|"),
    ("{{print 1 2 \"a\" \"b\" 3}}", "1 2ab3"),
    ("{{len .Name}} {{len \"é\"}}", "7 2"),
    ("{{if .Current}}y{{else}}n{{end}}", "y"),
    ("{{if .Error}}y{{else if .Name}}z{{else}}n{{end}}", "z"),
    ("{{ if and .Current (eq .Name \"default\") }}y{{end}}", "y"),
    ("{{html \"a<b>&\\\"'\"}}", "a&lt;b&gt;&amp;&#34;&#39;"),
    ("{{js \"a<b>&='é\\n\"}}", "a\\u003Cb\\u003E\\u0026\\u003D\\'é\\u000A"),
    ("{{urlquery \"a b&c/é\"}}", "a+b%26c%2F%C3%A9"),
    ("{{/* c */}}x{{- /* d */ -}} y", "xy"),
    ("{{$x := .Name}}{{$x}}{{$x = 2}}{{$x}}", "default2"),
    ("{{ .Name -}} x", "defaultx"),
    ("{{slice \"abc\" 1 2}}{{slice \"abc\" 1}}{{slice \"abc\"}}", "bbcabc"),
    ("{{slice (split \"a,b,c\" \",\") 1}}", "[b c]"),
    ("{{index (split \"a,b\" \",\") 1}}{{index .Name 0}}", "b100"),
    ("{{split \"abc\" \"\"}}", "[a b c]"),
    ("{{not \"\"}} {{and 1 0 2}} {{or 0 \"\" \"x\"}}", "true 0 x"),
    ("{{eq 1 2 1}} {{lt 1 2}} {{ge \"b\" \"a\"}} {{ne 1 2}} {{eq \"a\" nil}}", "true true true true false"),
    ("{{range 3}}{{.}}{{end}}", "012"),
    ("{{range $i, $x := split \"a,b\" \",\"}}{{$i}}{{$x}}{{else}}none{{end}}", "0a1b"),
    ("{{range $x := split \"a,b\" \",\"}}{{$x}}{{.}}{{end}}", "aabb"),
    ("{{range split \"a,b,c\" \",\"}}{{if eq . \"b\"}}{{continue}}{{end}}{{.}}{{end}}", "ac"),
    ("{{range split \"a,b,c\" \",\"}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}", "a"),
    ("{{$x := \"\"}}{{range split \"a,b\" \",\"}}{{$x = .}}{{end}}{{$x}}", "b"),
    ("{{range 0}}x{{else}}none{{end}}", "none"),
    ("{{define \"a\"}}[{{.}}]{{end}}{{template \"a\" \"x\"}}{{template \"a\"}}", "[x][<no value>]"),
    ("{{block \"b\" \"y\"}}<{{.}}>{{end}}", "<y>"),
    ("{{with \"a\"}}{{.}}{{else with \"b\"}}{{.}}{{end}}", "a"),
    ("{{with \"\"}}{{.}}{{else with \"b\"}}-{{.}}{{end}}", "-b"),
    ("{{with $x := \"a\"}}{{$x}}{{.}}{{$.Name}}{{end}}", "aadefault"),
    ("{{\"a\" | printf \"%s-%s\" \"b\"}}", "b-a"),
    ("{{json \"<&>\"}} {{json .Name}}", "\"<&>\" \"default\""),
    (
        "{{json .}}",
        "{\"Current\":true,\"Description\":\"Current DOCKER_HOST based configuration\",\"Error\":\"\",\"Name\":\"default\"}",
    ),
    (
        "{{1000000.0}} {{1e20}} {{12345678.5}} {{100000.0}} {{'a'}} {{0x1f}}",
        "1e+06 1e+20 1.23456785e+07 100000 97 31",
    ),
    // printf
    ("{{printf \"%-10s|%q\" .Name .Name}}", "default   |\"default\""),
    ("{{printf \"%v %s %d\" 1.5 1 \"x\"}}", "1.5 %!s(int=1) %!d(string=x)"),
    (
        "{{printf \"%5.2f|%-8s|%08d|%+d|%x|%X|%q|%c|%U\" 3.14159 \"ab\" 42 5 255 \"hi\" \"q\\\"\" 65 66}}",
        " 3.14|ab      |00000042|+5|ff|6869|\"q\\\"\"|A|U+0042",
    ),
    ("{{printf \"%!\"}} {{printf \"%d\"}} {{printf \"%\"}}", "%!!(MISSING) %!d(MISSING) %!(NOVERB)"),
    ("{{printf \"x\" 1 2}}", "x%!(EXTRA int=1, int=2)"),
    ("{{printf \"%[2]s %[1]s\" \"a\" \"b\"}}", "b a"),
    ("{{printf \"%*d|%6.2f%%|%t\" 5 3 12.345 true}}", "    3| 12.35%|true"),
    ("{{printf \"%e %T %T %T\" 1500.0 1 \"a\" 1.5}}", "1.500000e+03 int string float64"),
    ("{{printf \"%s %q\" (split \"a,b\" \",\") (split \"a,b\" \",\")}}", "[a b] [\"a\" \"b\"]"),
    ("{{printf \"%-5t|%5v|%05s\" true false \"a\"}}", "true |false|0000a"),
    ("{{printf \"%x %X % x\" \"hé\" \"hé\" \"abc\"}}", "68c3a9 68C3A9 61 62 63"),
    ("{{printf \"%#x %#o %b %#q %+q\" 255 8 5 \"a\" \"é\"}}", "0xff 010 101 `a` \"\\u00e9\""),
    (
        "{{printf \"%3c|%-3c|%03d|%+.2e|%g|%G\" 65 66 -5 12345.678 1e-7 1e-7}}",
        "  A|B  |-05|+1.23e+04|1e-07|1E-07",
    ),
    ("{{printf \"%.3v|%10.3s|%v\" \"abcdef\" \"abcdef\" nil}}", "abc|       abc|<nil>"),
    ("{{printf \"%z %d %s\" 1 1.5 true}}", "%!z(int=1) %!d(float64=1.5) %!s(bool=true)"),
    ("{{printf \"%6d|%-6d|%x\" 1 2 -255}}", "     1|2     |-ff"),
    // while rendering
    ("{{.Missing}}", "! :2: executing \"\" at <.Missing>: can't evaluate field Missing in type struct"),
    ("{{.Missing.X}}", "! :10: executing \"\" at <.Missing.X>: can't evaluate field Missing in type struct"),
    ("{{.Name}}{{.Nam}}", "! :11: executing \"\" at <.Nam>: can't evaluate field Nam in type struct"),
    ("{{.Name.X}}", "! :7: executing \"\" at <.Name.X>: can't evaluate field X in type string"),
    ("{{upper}}", "! :2: executing \"\" at <upper>: wrong number of args for upper: want 1 got 0"),
    (
        "{{truncate \"abc\"}}",
        "! :2: executing \"\" at <truncate>: wrong number of args for truncate: want 2 got 1",
    ),
    (
        "{{join .Name \",\"}}",
        "! :7: executing \"\" at <.Name>: wrong type for value; expected []string; got string",
    ),
    (
        "{{\"a\" | len | upper}}",
        "! :14: executing \"\" at <upper>: wrong type for value; expected string; got int",
    ),
    ("{{range .Name}}{{end}}", "! :8: executing \"\" at <.Name>: range can't iterate over default"),
    (
        "{{eq .Name 1}}",
        "! :2: executing \"\" at <eq .Name 1>: error calling eq: incompatible types for comparison",
    ),
    (
        "{{lt true false}}",
        "! :2: executing \"\" at <lt true false>: error calling lt: invalid type for comparison",
    ),
    ("{{nil}}", "! :2: executing \"\" at <nil>: nil is not a command"),
    (
        "{{index \"abc\" 5}}",
        "! :2: executing \"\" at <index \"abc\" 5>: error calling index: index out of range: 5",
    ),
    (
        "{{index 1 2}}",
        "! :2: executing \"\" at <index 1 2>: error calling index: can't index item of type int",
    ),
    (
        "{{index \"abc\" \"x\"}}",
        "! :2: executing \"\" at <index \"abc\" \"x\">: error calling index: cannot index slice/array with type string",
    ),
    (
        "{{slice \"abc\" 4}}",
        "! :2: executing \"\" at <slice \"abc\" 4>: error calling slice: index out of range: 4",
    ),
    ("{{len 3}}", "! :2: executing \"\" at <len 3>: error calling len: len of type int"),
    ("{{.Name \"x\"}}", "! :2: executing \"\" at <.Name>: wrong number of args for Name: want 0 got 1"),
    ("{{\"x\" | .Name}}", "! :8: executing \"\" at <.Name>: wrong number of args for Name: want 0 got 1"),
    ("{{true \"x\"}}", "! :2: executing \"\" at <true>: can't give argument to non-function true"),
    ("{{template \"zz\"}}", "! :11: executing \"\" at <\"zz\">: template \"zz\" not defined"),
    (
        "{{define \"a\"}}{{template \"a\"}}{{end}}{{template \"a\"}}",
        "! :25: executing \"\" at <\"a\">: exceeded maximum template depth (100)",
    ),
    (
        "{{truncate .Name -1}}",
        "! :2: executing \"\" at <truncate .Name -1>: error calling truncate: slice bounds out of range [:-1]",
    ),
    // while reading
    ("{{.Name", "! : unclosed action"),
    ("{{foo .}}", "! : function \"foo\" not defined"),
    ("{{1|2}}", "! : non executable command in pipeline stage 2"),
    ("{{if}}x{{end}}", "! : missing value for if"),
    ("{{if 1}}x", "! : unexpected EOF"),
    ("{{end}}", "! : unexpected {{end}}"),
    ("{{else}}", "! : unexpected {{else}}"),
    ("{{$x}}", "! : undefined variable \"$x\""),
    ("{{break}}", "! : {{break}} outside {{range}}"),
    ("{{}}", "! : missing value for command"),
    ("{{if 1}}{{$y := 1}}{{end}}{{$y}}", "! : undefined variable \"$y\""),
];

#[test]
fn rows_like_docker() {
    let labels = Map::new();
    for (text, expected) in ROW {
        assert_eq!(run(text, |t| t.render_row(&row(), &labels)), *expected, "{text}");
    }
}

fn container() -> Value {
    json!({
        "Id": "3f2a", "Created": "2026-01-31T15:04:05.123456789Z", "Path": "sh", "Args": ["-c", "<x>"],
        "State": {"Status": "running", "Running": true, "Pid": 1234567, "ExitCode": 0},
        "SizeRw": 18446744073709551615_u64,
        "Mounts": [{"Type": "bind", "Source": "/a", "RW": true}, {"Type": "volume", "Source": "/b", "RW": false}],
        "Config": {
            "Env": ["A=1", "B=2"], "Cmd": null, "Entrypoint": ["e"], "Labels": {"b.c": "2", "A": "1"}, "Volumes": null,
            "Descriptor": {"mediaType": "m"},
        },
        "NetworkSettings": {
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": null},
            "Networks": {"b": {"IPAddress": "10.0.0.2"}, "a": {"IPAddress": "10.0.1.2"}},
        },
    })
}

const INSPECT: &[(&str, &str)] = &[
    ("{{.Id}} {{.ID}} {{.Config.Descriptor.MediaType}}", "3f2a 3f2a m"),
    ("{{.State.Pid}} {{.SizeRw}}", "1234567 18446744073709551615"),
    ("{{json .State}}", "{\"Status\":\"running\",\"Running\":true,\"Pid\":1234567,\"ExitCode\":0}"),
    ("{{json .Config.Labels}} {{.Config.Labels}}", "{\"b.c\":\"2\",\"A\":\"1\"} map[A:1 b.c:2]"),
    ("{{json .Args}} {{.Args}} {{.State}}", "[\"-c\",\"<x>\"] [-c <x>] {running true 1234567 0}"),
    ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\nB=2\n"),
    ("{{join .Config.Env \", \"}}|{{join .Config.Cmd \" \"}}", "A=1, B=2|"),
    ("{{.Config.Cmd}} {{len .Config.Cmd}} {{.Config.Volumes}} {{json .Config.Cmd}}", "[] 0 map[] null"),
    ("{{index .Config.Labels \"b.c\"}}|{{index .Config.Labels \"x\"}}|{{.Config.Labels.x}}", "2||<no value>"),
    ("{{with index .Config.Labels \"x\"}}{{.}}{{else}}none{{end}}", "none"),
    ("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", "10.0.1.2 10.0.0.2 "),
    (
        "{{range $k, $v := .NetworkSettings.Networks}}{{$k}}={{$v.IPAddress}},{{end}}",
        "a=10.0.1.2,b=10.0.0.2,",
    ),
    (
        "{{.NetworkSettings.Networks.b.IPAddress}} {{.NetworkSettings.Networks.x.IPAddress}}",
        "10.0.0.2 <no value>",
    ),
    ("{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}", "8080"),
    ("{{with (index .NetworkSettings.Ports \"81/tcp\")}}x{{else}}unpublished{{end}}", "unpublished"),
    (
        "{{range $p, $c := .NetworkSettings.Ports}}{{$p}} -> {{range $c}}{{.HostPort}}{{else}}-{{end}};{{end}}",
        "80/tcp -> 8080;81/tcp -> -;",
    ),
    ("{{range $i, $m := .Mounts}}{{if $i}},{{end}}{{.Source}}:{{$m.RW}}{{end}}", "/a:true,/b:false"),
    ("{{range .Mounts}}{{json .}}{{break}}{{end}}", "{\"Type\":\"bind\",\"Source\":\"/a\",\"RW\":true}"),
    ("{{$.Id}}{{with .State}}{{$.Id}}{{.Pid}}{{end}}", "3f2a3f2a1234567"),
    ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
    ("{{and .State.Health .State.Health.Status}}", "<nil>"),
    ("{{if eq .State.ExitCode 0}}ok{{end}}{{if gt .State.Pid 1}}!{{end}}", "ok!"),
    (
        "{{.State.Health.Status}}",
        "! :15: executing \"\" at <.State.Health.Status>: map has no entry for key \"Health\"",
    ),
    ("{{.Stat.Pid}}", "! :7: executing \"\" at <.Stat.Pid>: can't evaluate field Stat in type struct"),
    (
        "{{(index (index .NetworkSettings.Ports \"81/tcp\") 0).HostPort}}",
        "! :3: executing \"\" at <index (index .Networ...>: error calling index: index out of range: 0",
    ),
    ("{{.Id.X}}", "! :5: executing \"\" at <.Id.X>: can't evaluate field X in type string"),
];

#[test]
fn inspect_like_docker() {
    for (text, expected) in INSPECT {
        assert_eq!(run(text, |t| t.render(&container())), *expected, "{text}");
    }
}

#[test]
fn an_unknown_field_names_those_there_are() {
    let error = Template::parse("\n{{.State.Pidd}}").unwrap().render(&container()).unwrap_err();
    assert_eq!(
        error::report(&error),
        "dhow: template: :2:8: executing \"\" at <.State.Pidd>: can't evaluate field Pidd in type struct\n\
         hint: the fields here are Status, Running, Pid, ExitCode\n"
    );
}

#[test]
fn every_prefix_and_suffix_returns() {
    let extra = [
        "{{\"\\xff\\u00e9\\101\"}}{{`a`}}{{'\\''}}{{1_0.5e-3}}{{$x,$y:=1}}{{- /**/ -}}",
        "{{printf \"%[1]*.[2]*[3]f%[9999999999]d%-+# 0999999999999.99999999999d\" 1 2 3}}{{printf \"%.*f\" 1000000 1.5}}",
        "{{index . 1 2}}{{slice . -1 9 9}}{{pad . 99999 -1}}{{range .}}{{.}}{{end}}{{index nil 1}}{{(.)}}{{.X.Y.Z}}",
    ];
    let values = [container(), json!(null), json!([]), json!("é"), json!(7)];
    let labels = Map::new();
    for text in ROW.iter().chain(INSPECT).map(|(text, _)| *text).chain(extra) {
        for (at, _) in text.char_indices().chain([(text.len(), ' ')]) {
            for part in [&text[..at], &text[at..]] {
                let Ok(template) = Template::parse(part) else { continue };
                for value in &values {
                    let _ = (template.render(value), template.render_row(value, &labels));
                    let _ = template.render_headings(value);
                }
            }
        }
    }
}

#[test]
fn nesting_is_limited() {
    for n in [101, 100_000] {
        for (open, close) in
            [("{{if 1}}", "{{end}}"), ("{{with 1}}{{else}}", "{{end}}"), ("{{if 1}}{{else if 1}}", "")]
        {
            assert!(Template::parse(&(open.repeat(n) + &close.repeat(n))).is_err());
        }
        assert!(Template::parse(&format!("{{{{{}1{}}}}}", "(".repeat(n), ")".repeat(n))).is_err());
    }
    assert!(Template::parse(&("{{if 1}}".repeat(40) + &"{{end}}".repeat(40))).is_ok());
}
