/* Acceleration is found out, not assumed.
 *
 * /dev/kvm can exist and KVM_CREATE_VM succeed on hosts where no stock guest gets anywhere: QEMU
 * aborts, or the guest hangs in its first instructions. Only a guest that says hello proves KVM. So
 * machine.c tries KVM with a short limit, then TCG, and what it found is remembered here, under a
 * hash of the CPU model, the host's kernel and the QEMU binary: when one of them changes, the
 * finding is not believed any more. --accel overrides all of it and is not remembered. */
#include "vm/launcher/accel.h"
#include "base/encode.h"
#include "base/io.h"
#include "base/json/json.h"
#include "base/proc.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/utsname.h>

void th_accel_done(struct th_accel *a)
{
    free(a->accel);
    free(a->why);
    *a = (struct th_accel){0};
}

char *th_accel_key(void)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_autobuf struct th_buf cpu = TH_BUF_INIT;
    if (th_io_read_file("/proc/cpuinfo", 16u << 20, &cpu, NULL) == 0) {
        const char *model = strstr(th_buf_cstr(&cpu), "model name");
        const char *end = model ? strchr(model, '\n') : NULL;
        if (end) {
            th_buf_add(&b, model, (size_t)(end - model));
        }
    }
    struct utsname u;
    if (uname(&u) == 0) {
        th_buf_printf(&b, "|%s %s", u.release, u.version);
    }
    th_autofree char *qemu = th_proc_find("qemu-system-x86_64");
    struct stat st;
    if (qemu && stat(qemu, &st) == 0) {
        th_buf_printf(&b, "|%lld %lld", (long long)st.st_size, (long long)st.st_mtime);
    }
    char hex[TH_SHA256_HEX_LEN];
    th_sha256_hex(b.p ? b.p : "", b.n, hex);
    return th_xstrndup(hex, 32);
}

static bool recall(const char *cache_dir, struct th_accel *ret)
{
    th_autofree char *path = th_path_join(cache_dir, "accel.json");
    th_autobuf struct th_buf text = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *o = NULL;
    if (th_io_read_file(path, 65536, &text, NULL) < 0 ||
        th_json_parse(text.p ? text.p : "", text.n, NULL, &o, NULL) < 0) {
        return false;
    }
    th_autofree char *key = th_accel_key();
    const char *accel = th_json_path_str(o, "accel"), *why = th_json_path_str(o, "why");
    if (!th_streq(th_json_path_str(o, "key"), key) || !why ||
        !(th_streq(accel, "kvm") || th_streq(accel, "tcg"))) {
        return false;
    }
    *ret = (struct th_accel){.accel = th_xstrdup(accel), .proven = true,
                             .why = th_xasprintf("%s (remembered)", why)};
    return true;
}

int th_accel_choose(const char *want, const char *cache_dir, struct th_accel *ret, struct th_err *err)
{
    if (th_streq(want, "kvm") || th_streq(want, "tcg")) {
        *ret = (struct th_accel){.accel = th_xstrdup(want), .why = th_xstrdup("chosen by --accel")};
        return 0;
    }
    if (want && !th_streq(want, "auto")) {
        (void)th_fail(err, TH_R_USAGE, "unknown acceleration \"%s\"", want);
        return th_hint(err, "use auto, kvm or tcg");
    }
    if (recall(cache_dir, ret)) {
        /* A remembered "kvm" is still tried with a heartbeat, a remembered "tcg" spares the try. */
        return 0;
    }
    th_autoclose int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        *ret = (struct th_accel){.accel = th_xstrdup("kvm"), .why = th_xstrdup("the guest's heartbeat came under KVM")};
    } else {
        *ret = (struct th_accel){.accel = th_xstrdup("tcg"),
                                 .why = th_xasprintf("/dev/kvm: %s", strerror(errno))};
    }
    return 0;
}

void th_accel_remember(const char *cache_dir, const char *accel, const char *why)
{
    th_autofree char *key = th_accel_key();
    TH_AUTO(th_json) struct th_json *o =
        th_json_build("{'key':%s,'accel':%s,'why':%s}", key, accel, why);
    th_autobuf struct th_buf text = TH_BUF_INIT;
    th_json_dump(o, &text);
    th_autofree char *path = th_path_join(cache_dir, "accel.json");
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    (void)(th_io_write_atomic(path, text.p, text.n, 0600, &err) < 0);
}
