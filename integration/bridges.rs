//! Networks of root in the kernel: bridges, ports, the firewall. Each test has a machine of its own: a network name space with
//! a neighbour (`out`) behind a device, in which a script is run.

use crate::sandbox::Sandbox;

for_root!(
    ports_are_reached_from_everywhere,
    networks_are_apart,
    nothing_of_others_is_touched,
    what_others_took_away_is_made_again,
    a_port_that_is_taken_is_told_of,
    the_killed_leave_nothing,
    addresses_run_out,
    a_device_is_shared,
);

/// The machine: 198.51.100.1 here, 198.51.100.2 its neighbour. `$D` is dhow; `get ADDRESS PORT` says `hello` or nothing.
const MACHINE: &str = r#"
set -eu
mount -t tmpfs none /run; mkdir -p /run/netns
ip link set lo up; ip netns add out
ip link add eth0 type veth peer name eth0 netns out
ip addr add 198.51.100.1/24 dev eth0; ip addr add 2001:db8::1/64 dev eth0 nodad; ip link set eth0 up
ip -n out addr add 198.51.100.2/24 dev eth0; ip -n out addr add 2001:db8::2/64 dev eth0 nodad
ip -n out link set eth0 up; ip -n out link set lo up
ip route add default via 198.51.100.2
GET='get() { printf "GET /hello HTTP/1.0\r\n\r\n" | busybox nc -w 2 "$1" "$2" 2>/dev/null | busybox tail -n 1; }'
eval "$GET"
get_out() { ip netns exec out sh -c "$GET; get $1 $2"; }
get_in() { c=$1; shift; $D exec "$c" busybox sh -c "$GET; get $1 $2"; }
is() { [ "$2" = "$3" ] || { echo "$1: '$2' is not '$3'"; exit 1; }; }
server() { n=$1; shift; $D run -d --name "$n" "$@" busybox busybox sh -c 'mkdir /w; echo hello >/w/hello; exec busybox httpd -f -p 80 -h /w' >/dev/null
  until $D exec "$n" busybox sh -c 'busybox netstat -ltn | busybox grep -q :80'; do :; done; }
address() { $D inspect -f "{{.NetworkSettings.Networks.$2.IPAddress}}" "$1"; }
"#;

#[track_caller]
fn on_a_machine(s: &Sandbox, script: &str) {
    let script =
        format!("D='{} --root {}'\n{MACHINE}\n{script}", crate::sandbox::dhow().display(), s.store.display());
    let flags = ["-n", "-m", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-c", &script];
    s.program("unshare").args(flags).output().exits(0);
}

fn ports_are_reached_from_everywhere(s: &Sandbox) {
    on_a_machine(
        s,
        r#"
server web -p 8080:80 -p 198.51.100.1:8081:80 -p 127.0.0.1:8082:80
for to in "127.0.0.1 8080" "::1 8080" "198.51.100.1 8080" "2001:db8::1 8080" "198.51.100.1 8081" "127.0.0.1 8082"; do
  is "from here to $to" "$(get $to)" hello
done
for to in "127.0.0.1 8081" "198.51.100.1 8082"; do is "from here to $to" "$(get $to)" ""; done
for to in "198.51.100.1 8080" "2001:db8::1 8080" "198.51.100.1 8081"; do
  is "from outside to $to" "$(get_out $to)" hello
done
ip -n out route add 10.0.0.0/8 via 198.51.100.1
is "what was not published" "$(get_out $(address web bridge) 80)" ""
$D run -d --name other busybox sleep 1000 >/dev/null
is "from another by the host" "$(get_in other 198.51.100.1 8080)" hello
is "from itself by the host" "$(get_in web 198.51.100.1 8080)" hello
$D restart -t 0 web >/dev/null
until [ "$(get 198.51.100.1 8080)" = hello ]; do :; done
$D rm -f web other >/dev/null
is "after it" "$(get 127.0.0.1 8080)" ""
"#,
    );
}

fn networks_are_apart(s: &Sandbox) {
    on_a_machine(
        s,
        r#"
$D network create one >/dev/null; $D network create --internal two >/dev/null
server a --network one; server b --network two
$D run -d --name c --network one busybox sleep 1000 >/dev/null
$D run -d --name d --network two busybox sleep 1000 >/dev/null
is "on the same" "$(get_in c $(address a one) 80)" hello
is "on the same, internal" "$(get_in d $(address b two) 80)" hello
is "from one to two" "$(get_in c $(address b two) 80)" ""
is "from two to one" "$(get_in d $(address a one) 80)" ""
is "to the outside" "$($D exec c ping -c 1 -W 2 198.51.100.2 | grep -c 'bytes from')" 1
is "from the internal one" "$($D exec d ping -c 1 -W 1 198.51.100.2 2>&1 | grep -c 'bytes from')" 0
"#,
    );
}

fn nothing_of_others_is_touched(s: &Sandbox) {
    on_a_machine(
        s,
        r#"
nft -f - <<E
table ip filter {
  chain FORWARD { type filter hook forward priority 0; policy accept; counter jump DOCKER-USER; }
  chain DOCKER-USER { counter return; }
}
table inet firewalld {
  chain filter_INPUT { type filter hook input priority 10; policy accept; ct state invalid drop; }
}
table ip nat {
  chain ufw-postrouting { type nat hook postrouting priority 100; oifname "eth9" masquerade; }
}
E
nft -s list ruleset >before
$D network create one >/dev/null
server web -p 8080:80 --network one
is "it works" "$(get 198.51.100.1 8080)" hello
nft -s list ruleset | awk '/^table (inet|bridge) dhow /{own=1} !own{print} /^}/{own=0}' >during
cmp before during
$D rm -f web >/dev/null; $D network rm one >/dev/null
nft -s list ruleset >after
cmp before after
is "no link is left" "$(ip -br link | grep -c dh || true)" 0
"#,
    );
}

fn what_others_took_away_is_made_again(s: &Sandbox) {
    on_a_machine(
        s,
        r#"
server web -p 8080:80
nft flush ruleset
is "flushed" "$(get 198.51.100.1 8080)" hello
nft list table inet dhow | grep -q 8080
nft delete table inet dhow
$D run --rm --network bridge busybox true
nft list table inet dhow | grep -q 8080
ip link del "$(ip -br link | grep -o 'dhow-[0-9a-f]*')"
$D run --rm --network bridge busybox true
is "its bridge was deleted" "$(get 198.51.100.1 8080)" hello
nft flush table inet dhow
$D network reload web >/dev/null
is "reloaded" "$(nft list table inet dhow | grep -c masquerade)" 5
"#,
    );
}

fn a_port_that_is_taken_is_told_of(s: &Sandbox) {
    on_a_machine(
        s,
        r#"
server web -p 8080:80
$D run --rm -p 8080:80 busybox true 2>err && exit 1
grep -q 'port 8080/tcp of the host: container web has it' err
busybox nc -l -p 9090 >/dev/null & until busybox netstat -ltn | grep -q :9090; do :; done
$D run --rm -p 9090:80 busybox true 2>err && exit 1
grep -q 'process [0-9]* (busybox) has it' err
$D run -d --name any -p 9090-9095:80 busybox sleep 100 >/dev/null
is "another of the range" "$($D port any 80 | head -n 1)" "0.0.0.0:9091"
is "only the running are left" "$($D ps -aq | wc -l)" 2
"#,
    );
}

fn the_killed_leave_nothing(s: &Sandbox) {
    on_a_machine(
        s,
        r#"
server web -p 8080:80
kill -9 "$(cat $D_STORE/containers/*/state.json | grep -o '"supervisor":{"pid":[0-9]*' | grep -o '[0-9]*$')" 
until [ "$($D ps -q | wc -l)" = 0 ]; do :; done
is "rules" "$(nft list ruleset | grep -c -e 8080 -e 'dhv[0-9a-f]' || true)" 0
until [ "$(ip -br link | grep -c dhv || true)" = 0 ]; do :; done
server next -p 8080:80
is "address" "$(address next bridge | grep -o '[0-9]*$')" 2
is "port" "$(get 198.51.100.1 8080)" hello
"#
        .replace("$D_STORE", &s.store.display().to_string())
        .as_str(),
    );
}

fn addresses_run_out(s: &Sandbox) {
    on_a_machine(
        s,
        r#"
$D network create --subnet 10.9.8.0/30 small >/dev/null
$D run -d --name one --network small busybox sleep 1000 >/dev/null
$D run --rm --network small busybox true 2>err && exit 1
grep -q 'all addresses of 10.9.8.0/30 are taken' err
$D rm -f one >/dev/null
$D run --rm --network small busybox true
$D network create --subnet 198.51.100.128/25 clash 2>err && exit 1
grep -q 'which this machine has a route to' err
"#,
    );
}

fn a_device_is_shared(s: &Sandbox) {
    on_a_machine(
        s,
        r#"
$D network create -d macvlan --subnet 198.51.100.0/24 --gateway 198.51.100.2 -o parent=eth0 lan >/dev/null
server web --network lan --ip 198.51.100.77
is "from outside" "$(get_out 198.51.100.77 80)" hello
is "the way out" "$($D exec web ip route | grep -c 'default via 198.51.100.2')" 1
$D restart -t 0 web >/dev/null
until [ "$(get_out 198.51.100.77 80)" = hello ]; do :; done
$D network disconnect lan web
is "left" "$($D exec web ip link | grep -c eth0 || true)" 0
$D network connect --ip 198.51.100.77 lan web
is "joined again" "$(get_out 198.51.100.77 80)" hello
$D rm -f web >/dev/null; $D network rm lan >/dev/null
$D network create -d macvlan --subnet 203.0.113.0/24 -o parent=none0 lan >/dev/null
$D run --rm --network lan busybox true 2>err && exit 1
grep -q 'cannot use the device none0: this machine has none of that name' err
"#,
    );
}
