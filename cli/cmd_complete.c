/*
 * thimble __complete WHAT: names for the shell, one a line. Never fails and never says anything
 * else: a completion that prints errors is worse than one that is empty.
 */
#include "cli/cluster.h"
#include "images/reference.h"
#include <stdio.h>

static void profiles(void)
{
    struct th_machine_info *list = NULL;
    size_t n = 0;
    if (th_machine_list(&list, &n, NULL) == 0) {
        for (size_t i = 0; i < n; i++) {
            printf("%s\n", list[i].profile);
        }
        th_machine_info_list_free(list, n);
    }
}

static void services(struct th_cluster_conn *c)
{
    struct th_json *list TH_AUTO(th_json) = NULL;
    if (th_client_list(c->client, TH_GVR_SERVICES, NULL, NULL, NULL, &list, NULL) < 0) {
        return;
    }
    const struct th_json *items = th_json_get(list, "items");
    for (size_t i = 0; i < th_json_len(items); i++) {
        printf("%s\n", th_json_path_str(th_json_at(items, i), "metadata.name"));
    }
}

static void images(struct th_cluster_conn *c)
{
    th_autofree char *path = th_xasprintf("/api/v1/nodes/%s/proxy/images", c->info.node_name);
    struct th_buf body TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    struct th_json *o TH_AUTO(th_json) = NULL;
    struct th_raw_req req = {.method = "GET", .path = path};
    if (th_client_raw(c->client, &req, NULL, &body, NULL) < 0 ||
        th_json_parse(th_buf_cstr(&body), body.n, NULL, &o, NULL) < 0) {
        return;
    }
    const struct th_json *list = th_json_get(o, "images");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *refs = th_json_path(th_json_at(list, i), "refs");
        for (size_t k = 0; k < th_json_len(refs); k++) {
            struct th_ref ref;
            if (th_ref_parse(th_json_str(th_json_at(refs, k)), &ref, NULL) == 0) {
                th_autofree char *name = th_ref_familiar(&ref);
                printf("%s\n", name);
                th_ref_done(&ref);
            }
        }
    }
}

static int run(struct th_cli *cli, struct th_err *err)
{
    (void)err;
    struct th_cluster_conn c TH_CLEANUP(th_cluster_done) = {.client = NULL};
    if (th_streq(cli->args[0], "profile")) {
        profiles();
    } else if (th_cluster_open(cli, &c, NULL) == 0) {
        if (th_streq(cli->args[0], "service")) {
            services(&c);
        } else if (th_streq(cli->args[0], "image")) {
            images(&c);
        }
    }
    return 0;
}

const struct th_cmd th_cmd_complete = {
    .name = "__complete",
    .group = "Other",
    .summary = "Print names for shell completion",
    .args = "profile|image|service",
    .min_args = 1,
    .max_args = 1,
    .hidden = true,
    .run = run,
};
