/*
 * thimble delete: stops the machine and removes everything of the profile, the kubeconfig's entries
 * included; the context that was current before the cluster's start comes back. Works on a profile
 * that is damaged, and takes a stale kubeconfig entry out even when the profile is gone.
 */
#include "cli/cluster.h"
#include "cli/kubeconfig.h"
#include "cli/output.h"
#include "cli/profile_note.h"
#include <stdio.h>

static int delete_one(const struct th_cli *cli, const char *profile, struct th_err *err)
{
    th_autofree char *context = th_profile_context(profile);
    th_autofree char *noted = th_profile_note_get(profile, "kubeconfig");
    th_autofree char *previous = th_profile_note_get(profile, "previous-context");
    th_autofree char *path = noted ? th_steal(&noted) : th_kubeconfig_path();
    th_autofree char *stale = th_kubeconfig_server(path, context);

    struct th_progress progress TH_CLEANUP(th_progress_failed);
    th_progress_init(&progress, cli);
    th_progress_step(&progress, "Deleting the cluster \"%s\"", profile);
    int r = th_machine_delete(profile, err);
    bool was_gone = r == -TH_R_NOT_FOUND && stale;
    if (r < 0 && !was_gone) {
        return r;
    }
    if (was_gone) {
        th_err_done(err);
    }
    TH_TRY(th_kubeconfig_remove(path, context, previous, err));
    th_profile_note_forget(profile);
    th_progress_done(&progress);
    if (was_gone) {
        th_progress_note(&progress,
                         "It did not exist any more; its kubeconfig entries are removed.");
    }
    return 0;
}

static int run(struct th_cli *cli, struct th_err *err)
{
    struct th_json *deleted TH_AUTO(th_json) = th_json_array();
    if (th_opt_bool(cli, "all")) {
        struct th_machine_info *list = NULL;
        size_t n = 0;
        TH_TRY(th_machine_list(&list, &n, err));
        int r = 0;
        for (size_t i = 0; i < n && r == 0; i++) {
            r = delete_one(cli, list[i].profile, err);
            th_json_append_str(deleted, list[i].profile);
        }
        th_machine_info_list_free(list, n);
        TH_TRY(r);
        TH_TRY(th_machine_templates_purge(err));
    } else {
        TH_TRY(th_profile_check_name(cli->profile, err));
        TH_TRY(delete_one(cli, cli->profile, err));
        th_json_append_str(deleted, cli->profile);
    }
    if (cli->json) {
        struct th_json *o TH_AUTO(th_json) = th_json_build("{'deleted':%o}", th_json_ref(deleted));
        th_print_json(o);
    }
    return 0;
}

static const struct th_cmd_opt opts[] = {
    {.name = "all", .help = "Delete the clusters of all profiles, and the templates of machines"},
    {.name = NULL},
};
static const char *const examples[] = {"thimble delete", "thimble delete -p demo",
                                       "thimble delete --all", NULL};
const struct th_cmd th_cmd_delete = {
    .name = "delete",
    .group = "Cluster",
    .summary = "Delete the cluster and everything it holds",
    .args = "",
    .examples = examples,
    .opts = opts,
    .run = run,
};
