/* QMP (qmp.h): greeting, qmp_capabilities, one command. Events may come at any time and are
 * skipped. */
#include "vm/launcher/qmp.h"
#include "base/clock.h"
#include "vm/launcher/channel.h"

#define QMP_LINE_MAX (1u << 20)
#define QMP_TIMEOUT_MS 10000

static int answer(struct th_channel *c, int64_t deadline_ms, struct th_json **ret, struct th_err *err)
{
    for (;;) {
        TH_AUTO(th_json) struct th_json *msg = NULL;
        TH_TRY(th_channel_recv(c, deadline_ms, &msg, err));
        if (th_json_has(msg, "error")) {
            const char *desc = th_json_path_str(msg, "error.desc");
            return th_fail(err, TH_R_INTERNAL, "QEMU: %s", desc ? desc : "unknown error");
        }
        if (th_json_has(msg, "return")) {
            if (ret) {
                *ret = th_json_ref(th_json_get(msg, "return"));
            }
            return 0;
        }
    }
}

int th_qmp_run(const char *path, const char *command, struct th_json *args, struct th_json **ret,
               struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *owned = args;
    int64_t deadline = th_mono_ms() + QMP_TIMEOUT_MS;
    TH_AUTO_CHANNEL struct th_channel c = TH_CHANNEL_INIT;
    TH_TRY(th_channel_connect(&c, path, QMP_LINE_MAX, 0, deadline, err));
    TH_AUTO(th_json) struct th_json *greeting = NULL;
    TH_TRY(th_channel_recv(&c, deadline, &greeting, err));
    if (!th_json_has(greeting, "QMP")) {
        return th_fail(err, TH_R_INTERNAL, "%s does not speak QMP", path);
    }
    TH_TRY(th_channel_send(&c, th_json_build("{'execute':'qmp_capabilities'}"), err));
    TH_TRY(answer(&c, deadline, NULL, err));
    struct th_json *msg = th_json_build("{'execute':%s}", command);
    if (owned) {
        th_json_set(msg, "arguments", th_steal(&owned));
    }
    TH_TRY(th_channel_send(&c, msg, err));
    return answer(&c, deadline, ret, err);
}

int th_qmp_hmp(const char *path, const char *line, struct th_buf *out, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *ret = NULL;
    TH_TRY(th_qmp_run(path, "human-monitor-command", th_json_build("{'command-line':%s}", line),
                      &ret, err));
    const char *text = th_json_str(ret);
    th_buf_puts(out, text ? text : "");
    return 0;
}
