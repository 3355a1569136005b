/* What is known about machines: status, list, ports, console. Reads files and /proc only; takes no
 * lock of the profile, so that it answers while a start is under way. */
#include "base/clock.h"
#include "base/io.h"
#include "base/limits.h"
#include "vm/launcher/machine_priv.h"
#include "vm/launcher/ports.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define CONSOLE_TAIL_B (256u << 10)
#define CONSOLE_LINES 200

void th_machine_info_done(struct th_machine_info *i)
{
    char *const owned[] = {i->profile, i->driver,    i->accel,  i->accel_why,      i->kernel,
                           i->version, i->api_url,   i->context, i->node_name,     i->ca_pem,
                           i->admin_cert_pem, i->admin_key_pem, i->console_path, i->how};
    for (size_t k = 0; k < TH_ARRAY_LEN(owned); k++) {
        free(owned[k]);
    }
    for (size_t k = 0; k < i->n_timings; k++) {
        free(i->timings[k].step);
    }
    free(i->timings);
    free(i->ports);
    *i = (struct th_machine_info){0};
}

void th_machine_info_list_free(struct th_machine_info *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        th_machine_info_done(&list[i]);
    }
    free(list);
}

static void fill_timings(const struct th_json *list, struct th_machine_info *i)
{
    i->n_timings = th_json_len(list);
    i->timings = th_xcalloc(i->n_timings + 1, sizeof(*i->timings));
    for (size_t k = 0; k < i->n_timings; k++) {
        const struct th_json *row = th_json_at(list, k);
        const char *step = th_json_path_str(row, "step");
        i->timings[k].step = th_xstrdup(step ? step : "?");
        i->timings[k].ms = th_json_path_int(row, "ms", 0);
    }
}

static int64_t disk_used(const struct th_profile *p)
{
    th_autofree char *disk = th_path_join(p->data, "disk.qcow2");
    struct stat st;
    return stat(disk, &st) == 0 ? (int64_t)st.st_blocks * 512 : 0;
}

int th_machine_info_fill(struct th_profile *p, struct th_machine_info *ret, struct th_err *err)
{
    TH_AUTO_PORTS struct th_ports book = TH_PORTS_INIT;
    TH_TRY(th_ports_load(p, false, &book, err));
    const struct th_driver *d = th_driver_find(p->driver);
    struct th_machine_info i = {.profile = th_xstrdup(p->name), .driver = th_xstrdup(p->driver)};
    pid_t pid = th_profile_alive(p);
    i.pid = pid;
    i.running = pid > 0;
    i.ready = i.running && th_json_path_bool(p->run, "ready", false);
    i.accel = th_xstrdup(th_json_path_str(p->run, "accel"));
    i.accel_why = th_xstrdup(th_json_path_str(p->run, "accel_why"));
    i.kernel = th_xstrdup(th_json_path_str(p->run, "kernel"));
    i.restored = th_json_path_bool(p->run, "restored", false);
    i.how = th_xstrdup(th_json_path_str(p->run, "how"));
    i.version = th_xstrdup(th_json_path_str(p->run, "version"));
    i.cpus = (int)th_json_path_int(p->run, "cpus", p->cpus);
    i.memory_mb = p->memory_mb;
    i.disk_gb = p->disk_gb;
    i.nodes = p->nodes;
    i.simulated_nodes = p->simulated_nodes;
    i.number = p->number;
    i.api_port = p->api_port;
    i.api_url = th_xasprintf("https://127.0.0.1:%d", p->api_port);
    i.context = th_profile_context(p->name);
    i.node_name = th_xstrdup(TH_NODE_NAME);
    i.ca_pem = th_identity_read(p, "ca.crt");
    i.admin_cert_pem = th_identity_read(p, "admin.crt");
    i.admin_key_pem = th_identity_read(p, "admin.key");
    if (pid > 0) {
        i.rss_kb = d && d->rss_kb ? d->rss_kb(pid) : 0;
        i.uptime_ms = th_now_ms() - th_json_path_int(p->run, "started_ms", th_now_ms());
    }
    i.disk_used_b = disk_used(p);
    i.ports = th_steal(&book.v);
    i.n_ports = book.n;
    fill_timings(th_json_get(p->run, "timings"), &i);
    i.console_path = th_profile_file(p, TH_HOST_CONSOLE);
    *ret = i;
    return 0;
}

static int open_profile(const char *name, struct th_profile *p, struct th_err *err)
{
    TH_TRY(th_profile_paths(name, p, err));
    return th_profile_load(p, err);
}

int th_machine_status(const char *profile, struct th_machine_info *ret, struct th_err *err)
{
    TH_AUTO_PROFILE struct th_profile p = {.lock_fd = -1};
    TH_TRY(open_profile(profile, &p, err));
    return th_machine_info_fill(&p, ret, err);
}

int th_machine_list(struct th_machine_info **ret, size_t *ret_n, struct th_err *err)
{
    th_autostrv struct th_strv names = TH_STRV_INIT;
    TH_TRY(th_profile_names(&names, err));
    struct th_machine_info *list = th_xcalloc(names.n + 1, sizeof(*list));
    size_t n = 0;
    for (size_t i = 0; i < names.n; i++) {
        TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
        int r = th_machine_status(names.v[i], &list[n], &e);
        if (r == -TH_R_NOT_FOUND) {
            continue;
        }
        if (r < 0) {
            list[n] = (struct th_machine_info){.profile = th_xstrdup(names.v[i])};
        }
        n++;
    }
    *ret = list;
    *ret_n = n;
    return 0;
}

int th_machine_port_add(const char *profile, const struct th_machine_port *port,
                        struct th_machine_port *ret, struct th_err *err)
{
    TH_AUTO_PROFILE struct th_profile p = {.lock_fd = -1};
    TH_TRY(open_profile(profile, &p, err));
    struct th_machine_port want = *port, got;
    (void)snprintf(want.origin, sizeof(want.origin), "user");
    TH_TRY(th_ports_forward(&p, &want, false, &got, err));
    if (ret) {
        *ret = got;
    }
    return 0;
}

int th_machine_port_remove(const char *profile, const char *host_ip, int host_port,
                           const char *proto, struct th_err *err)
{
    TH_AUTO_PROFILE struct th_profile p = {.lock_fd = -1};
    TH_TRY(open_profile(profile, &p, err));
    return th_ports_unforward(&p, host_ip ? host_ip : "127.0.0.1", host_port, proto ? proto : "tcp",
                              err);
}

int th_machine_port_list(const char *profile, struct th_machine_port **ret, size_t *ret_n,
                         struct th_err *err)
{
    TH_AUTO_PROFILE struct th_profile p = {.lock_fd = -1};
    TH_TRY(open_profile(profile, &p, err));
    TH_AUTO_PORTS struct th_ports book = TH_PORTS_INIT;
    TH_TRY(th_ports_load(&p, false, &book, err));
    *ret = th_steal(&book.v);
    *ret_n = book.n;
    return 0;
}

int th_console_tail(const struct th_profile *p, size_t lines, struct th_buf *ret)
{
    th_autofree char *path = th_profile_file(p, TH_HOST_CONSOLE);
    th_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        return -1;
    }
    off_t from = st.st_size > (off_t)CONSOLE_TAIL_B ? st.st_size - (off_t)CONSOLE_TAIL_B : 0;
    th_autobuf struct th_buf text = TH_BUF_INIT;
    if (lseek(fd, from, SEEK_SET) < 0 ||
        th_io_read_fd(fd, 2 * CONSOLE_TAIL_B, &text, NULL) < 0) {
        return -1;
    }
    size_t start = text.n;
    for (size_t seen = 0; start > 0; start--) {
        if (text.p[start - 1] == '\n' && start != text.n && ++seen >= lines) {
            break;
        }
    }
    for (size_t i = start; i < text.n; i++) { /* a serial line has carriage returns and escapes */
        unsigned char c = (unsigned char)text.p[i];
        if (c == '\n' || c == '\t' || c >= 32) {
            th_buf_putc(ret, (char)c);
        }
    }
    if (ret->n && ret->p[ret->n - 1] != '\n') {
        th_buf_putc(ret, '\n');
    }
    return 0;
}

int th_machine_console(const char *profile, size_t lines, struct th_buf *ret, struct th_err *err)
{
    TH_AUTO_PROFILE struct th_profile p = {.lock_fd = -1};
    TH_TRY(th_profile_paths(profile, &p, err));
    if (th_console_tail(&p, lines ? lines : CONSOLE_LINES, ret) < 0) {
        (void)th_fail(err, TH_R_NOT_FOUND, "there is no console of profile \"%s\"", p.name);
        return th_hint(err, "there is one after the first start; see thimble list");
    }
    return 0;
}
