/* thimble port-agent: started by QEMU for a connection of the guest; see vm/launcher. */
#include "cli/cluster.h"

static int run(struct th_cli *cli, struct th_err *err)
{
    const char *profile = cli->profile;
    for (int i = 0; i + 1 < cli->n_args; i++) {
        if (th_streq(cli->args[i], "-p") || th_streq(cli->args[i], "--profile")) {
            profile = cli->args[i + 1];
        }
    }
    return th_port_agent_main(profile) == 0 ? 0 : th_fail(err, TH_R_IO, "the port agent failed");
}

const struct th_cmd th_cmd_port_agent = {
    .name = "port-agent",
    .group = "Other",
    .summary = "Answer the guest's requests for host ports",
    .args = "-p PROFILE",
    .max_args = -1,
    .hidden = true,
    .raw_args = true,
    .run = run,
};
