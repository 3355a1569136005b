/*
 * thimble kubeconfig: writes the cluster's context into the kubeconfig again (after the file was
 * lost or its entry went stale), or prints a kubeconfig of its own.
 */
#include "cli/cluster.h"
#include "cli/kubeconfig.h"
#include "cli/output.h"
#include "cli/profile_note.h"
#include "base/encode.h"
#include "base/json/yaml.h"
#include <stdio.h>

static struct th_json *base64(const char *text)
{
    struct th_buf b TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    th_b64_encode(text, strlen(text), &b);
    return th_json_string(th_buf_cstr(&b));
}

static void print_own(const struct th_cli *cli, const struct th_machine_info *m)
{
    const char *n = m->context;
    struct th_json *o TH_AUTO(th_json) = th_json_build(
        "{'apiVersion':'v1','kind':'Config','current-context':%s,"
        "'clusters':[{'name':%s,'cluster':{'server':%s,'certificate-authority-data':%o}}],"
        "'users':[{'name':%s,'user':{'client-certificate-data':%o,'client-key-data':%o}}],"
        "'contexts':[{'name':%s,'context':{'cluster':%s,'user':%s,'namespace':'default'}}]}",
        n, n, m->api_url, base64(m->ca_pem), n, base64(m->admin_cert_pem), base64(m->admin_key_pem),
        n, n, n);
    if (cli->json) {
        th_print_json(o);
        return;
    }
    struct th_buf b TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    th_yaml_dump(o, &b);
    fputs(th_buf_cstr(&b), stdout);
}

static int run(struct th_cli *cli, struct th_err *err)
{
    struct th_machine_info info TH_CLEANUP(th_machine_info_done) = {.profile = NULL};
    TH_TRY(th_machine_status(cli->profile, &info, err));
    if (!info.ca_pem || !info.api_url) {
        (void)th_fail(err, TH_R_NOT_RUNNING, "the cluster \"%s\" has never been started",
                      cli->profile);
        return th_hint(err, "start it with \"thimble start\"");
    }
    if (th_opt_bool(cli, "print")) {
        print_own(cli, &info);
        return 0;
    }
    th_autofree char *path = th_kubeconfig_path();
    struct th_kube_entry e = {info.context, info.api_url, info.ca_pem, info.admin_cert_pem,
                              info.admin_key_pem};
    th_autofree char *previous = NULL;
    TH_TRY(th_kubeconfig_merge(path, &e, true, &previous, err));
    if (previous) {
        TH_TRY(th_profile_note_set(cli->profile, "previous-context", previous, err));
    }
    TH_TRY(th_profile_note_set(cli->profile, "kubeconfig", path, err));
    if (cli->json) {
        struct th_json *o TH_AUTO(th_json) =
            th_json_build("{'context':%s,'kubeconfig':%s}", info.context, path);
        th_print_json(o);
    } else if (!cli->quiet) {
        printf("kubectl uses context \"%s\" in %s now.\n", info.context, path);
    }
    return 0;
}

static const struct th_cmd_opt opts[] = {
    {.name = "print", .help = "Print a kubeconfig of its own instead of changing the user's"},
    {.name = NULL},
};
static const char *const examples[] = {"thimble kubeconfig",
                                       "thimble kubeconfig --print > demo.kubeconfig", NULL};
const struct th_cmd th_cmd_kubeconfig = {
    .name = "kubeconfig",
    .group = "Working with it",
    .summary = "Make kubectl use the cluster, or print its kubeconfig",
    .args = "",
    .examples = examples,
    .opts = opts,
    .run = run,
};
