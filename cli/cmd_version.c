/* thimble version */
#include "cli/cmd.h"
#include "cli/output.h"
#include "base/version.h"
#include <stdio.h>

static int run(struct th_cli *cli, struct th_err *err)
{
    (void)err;
    if (cli->json) {
        struct th_json *o TH_AUTO(th_json) =
            th_json_build("{'version':%s,'kubernetes':%s}", TH_VERSION, TH_KUBE_VERSION);
        th_print_json(o);
    } else {
        printf("thimble %s (Kubernetes %s)\n", TH_VERSION, TH_KUBE_VERSION);
    }
    return 0;
}

const struct th_cmd th_cmd_version = {
    .name = "version",
    .group = "Other",
    .summary = "Print the versions of thimble and of its Kubernetes API",
    .args = "",
    .run = run,
};
