/* thimble stop: an orderly shutdown; everything is there again at the next start. */
#include "cli/cluster.h"
#include "cli/output.h"
#include "base/clock.h"
#include <stdio.h>

static int run(struct th_cli *cli, struct th_err *err)
{
    int64_t timeout_s = 30;
    TH_TRY(th_profile_check_name(cli->profile, err));
    TH_TRY(th_opt_int(cli, "timeout", 1, 3600, &timeout_s, err));
    struct th_progress progress TH_CLEANUP(th_progress_failed);
    th_progress_init(&progress, cli);
    int r = th_machine_stop(cli->profile, timeout_s * 1000, th_machine_step, &progress, err);
    bool was_stopped = r == -TH_R_NOT_RUNNING;
    if (r < 0 && !was_stopped) {
        return r;
    }
    if (was_stopped) {
        th_err_done(err);
    }
    th_progress_done(&progress);
    if (cli->json) {
        struct th_json *o TH_AUTO(th_json) =
            th_json_build("{'profile':%s,'stopped':%b}", cli->profile, !was_stopped);
        th_print_json(o);
    } else if (!cli->quiet) {
        char took[32];
        th_format_ms(th_mono_ms() - progress.began_ms, took);
        if (was_stopped) {
            printf("The cluster \"%s\" was not running.\n", cli->profile);
        } else {
            printf("The cluster \"%s\" is stopped after %s. \"thimble start\" brings it back.\n",
                   cli->profile, took);
        }
    }
    return 0;
}

static const struct th_cmd_opt opts[] = {
    {.name = "timeout", .arg = "SECONDS", .dflt = "30", .help = "How long pods may take to end"},
    {.name = NULL},
};
const struct th_cmd th_cmd_stop = {
    .name = "stop",
    .group = "Cluster",
    .summary = "Stop the cluster and keep all it holds",
    .args = "",
    .opts = opts,
    .run = run,
};
