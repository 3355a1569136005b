#ifndef TH_LAUNCHER_PROTOCOL_H
#define TH_LAUNCHER_PROTOCOL_H
/* What the launcher (host) and `thimbled init` (guest) say to each other over the control channel:
 * the virtio-serial port named below, or with the host driver a Unix socket.
 *
 * One JSON object per line, at most TH_CTL_LINE_MAX bytes, each with a "type". Unknown types and
 * unknown members are ignored, so that either side may be newer. The channel may be cut and opened
 * again at any time (the launcher is a command, not a daemon): init says hello on every opening
 * and keeps no state about a connection.
 *
 *   guest                                host
 *   ─────                                ────
 *   hello {version,kernel,phase,uptime_ms}
 *                                        quiet {}             -> progress ..., quiet {}
 *                                        wake {unix_ms,seed}  -> awake {}
 *                                        identity {hostname,config,files}
 *   progress {step,ms} ...
 *   ready {ms} | failed {reason,msg,hint}
 *                                        ping {id}            -> pong {id,phase}
 *                                        status {}            -> status {phase,children,memory}
 *                                        clock {unix_ms}      -> ok {re:"clock"}
 *                                        shutdown {grace_ms}  -> progress ..., bye {}
 *
 * hello is the first thing that init does after it has found the port: it proves that the
 * acceleration works. identity is sent on every boot; a second one is answered with the state as it
 * is. quiet asks init to do all that needs no identity and then to be still: the launcher may keep the
 * machine as a template (vm/launcher/boot.c). What runs on may be that machine or a copy of it, days
 * later; wake says what time it is, and mixes `seed` (base64) into the random pool before anything
 * draws from it. Neither need be sent. `files` are written below TH_GUEST_ETC, mode 0600, a tmpfs: keys never reach the disk image.
 *
 * This header is all that the two sides share; it has no code and links nothing. */
#define TH_CTL_PORT_NAME "thimble.control"
#define TH_CTL_LINE_MAX (1u << 20)

/* guest -> host */
#define TH_CTL_HELLO "hello"
#define TH_CTL_PROGRESS "progress"
#define TH_CTL_READY "ready"
#define TH_CTL_FAILED "failed"
#define TH_CTL_PONG "pong"
#define TH_CTL_OK "ok"
#define TH_CTL_BYE "bye"
#define TH_CTL_AWAKE "awake"
/* host -> guest */
#define TH_CTL_IDENTITY "identity"
#define TH_CTL_QUIET "quiet" /* and its answer */
#define TH_CTL_WAKE "wake"
#define TH_CTL_PING "ping"
#define TH_CTL_STATUS "status" /* and its answer */
#define TH_STEP_IDENTITY "identity" /* the step after which the guest listens again */
#define TH_CTL_CLOCK "clock"
#define TH_CTL_SHUTDOWN "shutdown"

/* Values of "phase". */
#define TH_PHASE_WAITING "waiting"   /* for the identity */
#define TH_PHASE_STARTING "starting" /* children are on their way */
#define TH_PHASE_READY "ready"
#define TH_PHASE_FAILED "failed"
#define TH_PHASE_STOPPING "stopping"

/* Where things are inside; flags of the children carry them, the host driver uses others. */
#define TH_GUEST_DATA "/var/lib/thimble"
#define TH_GUEST_RUN "/run/thimble"
#define TH_GUEST_ETC "/etc/thimble"
#define TH_GUEST_DATA_SERIAL "thimble-data" /* virtio-blk serial of the data disk */

/* How init runs its children (paths as above, others with the host driver); each is a subcommand of
 * thimbled, writes a line to the descriptor after --ready-fd once it serves, and ends on SIGTERM:
 *   thimbled controlplane --data DATA/store --run RUN --etc ETC --ready-fd N
 *   thimbled node --name NAME --data DATA --run RUN --etc ETC --ready-fd N
 * The node agent leaves its containers running when it ends. ETC has the identity's files and
 * cluster.json:
 *   {"profile":"default","number":0,"node":"thimble","nodes":1,"simulatedNodes":0,
 *    "podCIDR":"10.244.0.0/16","serviceCIDR":"10.96.0.0/16","dnsIP":"10.96.0.10",
 *    "clusterDomain":"cluster.local","nodeIP":"10.0.2.15","apiPort":6443,
 *    "driver":"libvirt","portAgent":"tcp:10.0.2.100:1" (host driver: "unix:RUN/ports.sock"),
 *    "children":["controlplane","node"]}
 * Identity files: ca.crt ca.key sa.key sa.pub server.crt server.key. */

/* QEMU's user network. */
#define TH_NET_GUEST_IP "10.0.2.15"
#define TH_NET_GATEWAY "10.0.2.2"
#define TH_NET_DNS "10.0.2.3"
#define TH_NET_PORT_AGENT_IP "10.0.2.100" /* TCP port 1: `thimble port-agent` on the host */
#define TH_NET_PORT_AGENT_PORT 1
#define TH_NET_API_PORT 6443

/* Port agent, one JSON line each way per request, several requests per connection:
 *   {"op":"forward","host_ip":"127.96.0.7","host_port":80,"guest_port":31080,"proto":"tcp"}
 *   {"op":"unforward","host_ip":"127.96.0.7","host_port":80,"proto":"tcp"}
 *   {"op":"list"}
 * Answers {"ok":true,"host_ip":...,"host_port":N,"wanted_port":80} (host_port differs from
 * wanted_port when the wanted one is not allowed or taken), {"ok":true,"ports":[...]}, or
 * {"ok":false,"reason":"port-in-use","msg":...}. Optional member "guest_ip" (default
 * TH_NET_GUEST_IP). Only addresses of 127.0.0.0/8 are ever bound; "unforward" names the wanted
 * port or the given one. forward is idempotent. */
#define TH_PORTS_LINE_MAX 4096
#define TH_PORTS_SOCK "ports.sock" /* with the host driver: below TH_GUEST_RUN's stand-in */

/* The host driver's supervisor, `thimbled init --host` (vm/guest/hostmode.c). It writes "ok\n", or a
 * sentence that says what is wrong, to --ready-fd and closes it. On --relay, a Unix socket, it takes
 * one JSON line per request, {"op":"add"|"remove"} with host_ip, host_port, guest_ip, guest_port and
 * proto, and answers {"ok":true} or {"ok":false,"reason":...,"msg":...}. --pid-file gets the process
 * id and start ticks of the init that has the cluster's namespaces. */
#define TH_HOST_RUN "run" /* below the profile's state folder: stand-ins of TH_GUEST_RUN, _ETC */
#define TH_HOST_ETC "etc"
#define TH_HOST_RELAY "relay.sock"
#define TH_HOST_PID "init.pid"
#endif
