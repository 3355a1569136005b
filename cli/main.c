/*
 * thimble: the host program. Finds the command, runs it, prints its error, and turns the reason
 * into an exit code by class (base/reasons.def). Commands never print their own errors or exit.
 */
#include "cli/cmd.h"
#include "cli/output.h"
#include "base/buf.h"
#include "base/log.h"
#include "vm/launcher/bundle.h"
#include <signal.h>
#include <stdio.h>

static int run(struct th_cli *cli, int argc, char **argv, struct th_err *err)
{
    bool help = false;
    TH_TRY(th_cli_parse(argc, argv, cli, &help, err));
    th_log_configure(cli->verbose ? "debug" : "warn");
    if (help) {
        struct th_buf text TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
        th_help_print(cli->cmd, cli->path, &text);
        fputs(th_buf_cstr(&text), stdout);
        return 0;
    }
    return cli->cmd->run(cli, err);
}

int main(int argc, char **argv)
{
    (void)signal(SIGPIPE, SIG_IGN);
    th_guest_bundle_use(&th_guest_bundle_embedded);
    struct th_cli cli = {0};
    struct th_err err = TH_ERR_INIT;
    int code = 0;
    int r = run(&cli, argc, argv, &err);
    if (r < 0) {
        if (err.reason == TH_R_OK) {
            (void)th_fail(&err, (enum th_reason) - r, "failed");
        }
        th_print_error(&cli, &err);
        code = th_reason_exit(err.reason);
    }
    if (fflush(stdout) != 0 && code == 0) {
        code = 1;
    }
    th_err_done(&err);
    th_cli_done(&cli);
    return code;
}
