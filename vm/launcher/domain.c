/* The domain XML.
 *
 * Choices, each measured (docs/machine.md): machine q35 with the kernel as PVH ELF, and every device
 * on its root bus at an address of ours (machine pc routes each device's interrupt through ACPI link
 * devices, whose bytecode took half of the kernel's boot; root ports would cost a bus scan each); no
 * HPET where the time stamp counter will do, for its reads leave the translated code; qemu64 under TCG
 * (max costs a third) and the host's CPU under KVM; a translation buffer of 64 MiB, 128 in a machine from
 * a template (three starting pods empty one of 32 a dozen times; QEMU's default holds much more memory); no
 * graphics, USB or sound; the console goes to a file.
 *
 * The network card is given to QEMU directly (qemu:commandline) since libvirt's
 * <interface type='user'> knows no forwards at start and no guestfwd. guestfwd is what carries the
 * port agent: a guest's connection to 10.0.2.100:1 makes QEMU run a command with the connection as
 * its stdin and stdout, so no daemon of ours runs on the host. libvirt's seccomp sandbox forbids
 * QEMU to start programs, and a session daemon's configuration is not ours to change: this is why
 * the driver always uses the embedded libvirt (driver_libvirt.c). libvirt replaces QEMU's
 * environment, so the agent's command line names the XDG folders again.
 *
 * Commas are doubled in QEMU's option values, the agent's words are quoted for g_shell_parse_argv,
 * and all text is escaped for XML. */
#include "vm/launcher/domain.h"
#include "vm/launcher/protocol.h"

/* cryptomgr.notests: Debian's kernel tests its ciphers at each boot otherwise. Under TCG the time
 * stamp counter is the host's, so the guest is told its frequency (on a busy host its own measurement
 * can be far off, and its clock with it) and need not doubt it; and speculation does not leak. */
#define CMDLINE "console=ttyS0 quiet panic=-1 cryptomgr.notests transparent_hugepage=madvise"
#define CMDLINE_TCG " mitigations=off"
#define CMDLINE_ROOT " root=/dev/vda ro rootfstype=erofs init=/usr/sbin/thimbled"

/* The same for all: each machine is alone in a network of its own, and a template has it in its memory. */
#define MAC "52:54:00:74:68:01"

/* Slots on the root bus. */
#define SLOT_SERIAL "0x02"
#define SLOT_ROOT "0x03"
#define SLOT_DATA "0x04"
#define SLOT_RNG "0x05"
#define SLOT_BALLOON "0x06"
#define SLOT_NET "0x1e"

static void xml(struct th_buf *b, const char *s)
{
    for (; *s; s++) {
        switch (*s) {
        case '&':
            th_buf_puts(b, "&amp;");
            break;
        case '<':
            th_buf_puts(b, "&lt;");
            break;
        case '>':
            th_buf_puts(b, "&gt;");
            break;
        case '\'':
            th_buf_puts(b, "&apos;");
            break;
        case '"':
            th_buf_puts(b, "&quot;");
            break;
        default:
            th_buf_putc(b, *s);
        }
    }
}

/* fmt with %s holes only; every value is escaped. */
static void row(struct th_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    for (const char *p = fmt; *p; p++) {
        if (p[0] == '%' && p[1] == 's') {
            xml(b, va_arg(ap, const char *));
            p++;
        } else {
            th_buf_putc(b, *p);
        }
    }
    va_end(ap);
    th_buf_putc(b, '\n');
}

static void shell_word(struct th_buf *b, const char *s)
{
    th_buf_putc(b, '\'');
    for (; *s; s++) {
        if (*s == '\'') {
            th_buf_puts(b, "'\\''");
        } else {
            th_buf_putc(b, *s);
        }
    }
    th_buf_putc(b, '\'');
}

static char *double_commas(const char *s)
{
    struct th_buf b = TH_BUF_INIT;
    for (; *s; s++) {
        th_buf_putc(&b, *s);
        if (*s == ',') {
            th_buf_putc(&b, ',');
        }
    }
    return b.n ? th_buf_steal(&b, NULL) : th_xstrdup("");
}

static char *parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    return th_xstrndup(path, slash ? (size_t)(slash - path) : 0);
}

static char *agent_command(const struct th_machine_spec *spec)
{
    th_autobuf struct th_buf cmd = TH_BUF_INIT;
    const struct th_profile *p = spec->profile;
    th_autofree char *data_thimble = parent(p->data), *data = parent(data_thimble);
    th_autofree char *state_thimble = parent(p->state), *state = parent(state_thimble);
    th_autofree char *cache = parent(p->cache);
    const struct {
        const char *name, *value;
    } env[] = {{"XDG_DATA_HOME", data}, {"XDG_STATE_HOME", state}, {"XDG_CACHE_HOME", cache}};
    th_buf_puts(&cmd, "/usr/bin/env");
    for (size_t i = 0; i < TH_ARRAY_LEN(env); i++) {
        th_autofree char *pair = th_xasprintf("%s=%s", env[i].name, env[i].value);
        th_buf_putc(&cmd, ' ');
        shell_word(&cmd, pair);
    }
    th_buf_putc(&cmd, ' ');
    shell_word(&cmd, spec->program);
    th_buf_printf(&cmd, " port-agent -p %s", p->name);
    return double_commas(th_buf_cstr(&cmd));
}

static char *netdev(const struct th_machine_spec *spec)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_puts(&b, "user,id=hostnet0,ipv6=off");
    for (size_t i = 0; i < spec->n_ports; i++) {
        const struct th_machine_port *port = &spec->ports[i];
        th_buf_printf(&b, ",hostfwd=%s:%s:%d-%s:%d", port->proto, port->host_ip, port->host_port,
                      port->guest_ip[0] ? port->guest_ip : TH_NET_GUEST_IP, port->guest_port);
    }
    if (spec->program) {
        th_autofree char *cmd = agent_command(spec);
        th_buf_printf(&b, ",guestfwd=tcp:%s:%d-cmd:%s", TH_NET_PORT_AGENT_IP,
                      TH_NET_PORT_AGENT_PORT, cmd);
    }
    return th_buf_steal(&b, NULL);
}

static void qemu_args(const struct th_machine_spec *spec, struct th_buf *b)
{
    th_autofree char *net = netdev(spec);
    th_autofree char *qmp_path = double_commas(spec->qmp);
    th_autofree char *qmp =
        th_xasprintf("socket,id=thimbleqmp,path=%s,server=on,wait=off", qmp_path);
    const char *const args[] = {"-netdev", net, "-device",
                                "virtio-net-pci,netdev=hostnet0,mac=" MAC ",romfile=,addr=" SLOT_NET,
                                "-chardev", qmp, "-mon", "chardev=thimbleqmp,mode=control",
                                "-incoming", "defer"};
    size_t n = TH_ARRAY_LEN(args) - (spec->incoming ? 0 : 2);
    row(b, "  <qemu:commandline>");
    for (size_t i = 0; i < n; i++) {
        row(b, "    <qemu:arg value='%s'/>", args[i]);
    }
    row(b, "  </qemu:commandline>");
    /* libvirt asks QEMU for each of 400 properties of the processor, one at a time, a tenth of a second
     * in all, where it does not know that one question will do. */
    row(b, "  <qemu:capabilities>");
    row(b, "    <qemu:del capability='cpu-unavailable-features'/>");
    row(b, "  </qemu:capabilities>");
}

static void address(struct th_buf *b, const char *slot)
{
    row(b, "      <address type='pci' domain='0x0000' bus='0x00' slot='%s' function='0x0'/>", slot);
}

static void disks(const struct th_machine_spec *spec, struct th_buf *b)
{
    row(b, "    <disk type='file' device='disk'>");
    row(b, "      <driver name='qemu' type='raw'/>");
    row(b, "      <source file='%s'/>", spec->rootfs);
    row(b, "      <target dev='vda' bus='virtio'/>");
    address(b, SLOT_ROOT);
    row(b, "      <readonly/>");
    row(b, "    </disk>");
    row(b, "    <disk type='file' device='disk'>");
    row(b, "      <driver name='qemu' type='qcow2' discard='unmap'/>");
    row(b, "      <source file='%s'/>", spec->disk);
    row(b, "      <target dev='vdb' bus='virtio'/>");
    address(b, SLOT_DATA);
    row(b, "      <serial>" TH_GUEST_DATA_SERIAL "</serial>");
    row(b, "    </disk>");
}

void th_domain_xml(const struct th_machine_spec *spec, const char *emulator, struct th_buf *b)
{
    bool kvm = th_streq(spec->accel, "kvm");
    char memory[16], cpus[16];
    (void)snprintf(memory, sizeof(memory), "%d", spec->profile->memory_mb);
    (void)snprintf(cpus, sizeof(cpus), "%d", spec->cpus);
    row(b, "<domain type='%s' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>",
        kvm ? "kvm" : "qemu");
    row(b, "  <name>thimble-%s</name>", spec->profile->name);
    row(b, "  <uuid>%s</uuid>", spec->profile->uuid);
    row(b, "  <memory unit='MiB'>%s</memory>", memory);
    row(b, "  <vcpu>%s</vcpu>", cpus);
    row(b, "  <os>");
    row(b, "    <type arch='x86_64' machine='q35'>hvm</type>");
    row(b, "    <kernel>%s</kernel>", spec->kernel);
    if (spec->initramfs) {
        row(b, "    <initrd>%s</initrd>", spec->initramfs);
    }
    char tsc[48] = "";
    if (!kvm && spec->tsc_khz > 0) {
        (void)snprintf(tsc, sizeof(tsc), " tsc=reliable tsc_early_khz=%lld", (long long)spec->tsc_khz);
    }
    row(b, "    <cmdline>" CMDLINE "%s%s%s</cmdline>", kvm ? "" : CMDLINE_TCG, tsc,
        spec->initramfs ? "" : CMDLINE_ROOT);
    row(b, "  </os>");
    row(b, "  <features>");
    row(b, "    <acpi/>");
    row(b, "    <apic/>");
    if (!kvm) {
        /* A machine that has not booted here has not filled it with what only a boot needs. */
        row(b, "    <tcg><tb-cache unit='MiB'>%s</tb-cache></tcg>", spec->incoming ? "128" : "64");
    }
    row(b, "  </features>");
    if (kvm) {
        row(b, "  <cpu mode='host-passthrough' check='none'/>");
    } else {
        row(b, "  <cpu mode='custom' match='exact' check='none'><model fallback='allow'>qemu64"
               "</model></cpu>");
    }
    row(b, "  <clock offset='utc'><timer name='hpet' present='%s'/></clock>",
        kvm || spec->tsc_khz > 0 ? "no" : "yes");
    row(b, "  <on_poweroff>destroy</on_poweroff>");
    row(b, "  <on_reboot>destroy</on_reboot>");
    row(b, "  <on_crash>destroy</on_crash>");
    row(b, "  <devices>");
    row(b, "    <emulator>%s</emulator>", emulator);
    disks(spec, b);
    row(b, "    <controller type='usb' model='none'/>");
    row(b, "    <controller type='virtio-serial' index='0'>");
    address(b, SLOT_SERIAL);
    row(b, "    </controller>");
    row(b, "    <serial type='file'>");
    row(b, "      <source path='%s' append='off'/>", spec->console);
    row(b, "      <target type='isa-serial' port='0'/>");
    row(b, "    </serial>");
    row(b, "    <channel type='unix'>");
    row(b, "      <source mode='bind' path='%s'/>", spec->control);
    row(b, "      <target type='virtio' name='" TH_CTL_PORT_NAME "'/>");
    row(b, "    </channel>");
    row(b, "    <rng model='virtio'>");
    row(b, "      <backend model='random'>/dev/urandom</backend>");
    address(b, SLOT_RNG);
    row(b, "    </rng>");
    row(b, "    <memballoon model='virtio' autodeflate='on' freePageReporting='on'>");
    address(b, SLOT_BALLOON);
    row(b, "    </memballoon>");
    row(b, "  </devices>");
    qemu_args(spec, b);
    row(b, "</domain>");
}
