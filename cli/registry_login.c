/* The registry logins that `docker login` and `podman login` have left on the host.
 *
 * The pull happens in the machine, which knows nothing of the host's files; so the one credential that
 * is for the image's registry goes along with the call, and no other. Passwords may be in the file
 * itself or with a credential helper: a program docker-credential-NAME that is asked with `get` and
 * the registry's name on its standard input (Docker's documentation, "docker login", credential
 * helpers). Docker Hub is https://index.docker.io/v1/ there.
 */
#include "cli/registry_login.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/proc.h"
#include "images/keyring.h"

#include <stdlib.h>

#define HELPER_TIMEOUT_MS 30000
#define HUB "https://index.docker.io/v1/"

static void put(struct th_buf *b, const struct th_ref *ref, const char *user, const char *password)
{
    TH_AUTO(th_json) struct th_json *one = th_json_build("{'username':%s,'password':%s}", user, password);
    TH_AUTO(th_json) struct th_json *auths = th_json_object();
    th_json_set(auths, ref->domain, th_json_ref(one));
    TH_AUTO(th_json) struct th_json *o = th_json_build("{'auths':%o}", th_json_ref(auths));
    th_json_dump(o, b);
}

/* The config file in use, or NULL; caller frees. */
static char *config_file(void)
{
    static const struct {
        const char *env, *below;
    } places[] = {{"DOCKER_CONFIG", "config.json"},
                  {"HOME", ".docker/config.json"},
                  {"REGISTRY_AUTH_FILE", NULL},
                  {"XDG_RUNTIME_DIR", "containers/auth.json"}};
    for (size_t i = 0; i < TH_ARRAY_LEN(places); i++) {
        const char *dir = getenv(places[i].env);
        if (!dir || !*dir) {
            continue;
        }
        th_autofree char *path = places[i].below ? th_path_join(dir, places[i].below) : th_xstrdup(dir);
        if (th_io_exists(path)) {
            return th_steal(&path);
        }
    }
    return NULL;
}

/* The helper that keeps this registry's password, or NULL. */
static const char *helper_for(const struct th_json *config, const char *domain)
{
    const struct th_json *helpers = th_json_get(config, "credHelpers");
    const char *own = th_json_str(th_json_get(helpers, domain));
    return own ? own : th_json_str(th_json_get(config, "credsStore"));
}

static int ask_helper(const char *name, const struct th_ref *ref, struct th_buf *ret, struct th_err *err)
{
    th_autofree char *program = th_xasprintf("docker-credential-%s", name);
    const char *const argv[] = {program, "get", NULL};
    const char *server = th_streq(ref->domain, "docker.io") ? HUB : ref->domain;
    struct th_proc_opts o = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    th_autobuf struct th_buf out = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *answer = NULL;
    int exit_code = 0;
    int r = th_proc_run(&o, th_str_of(server), &out, NULL, HELPER_TIMEOUT_MS, &exit_code, err);
    if (exit_code == 1 && strstr(th_buf_cstr(&out), "not found")) {
        th_err_done(err);
        return 0; /* the protocol's word for: no login there */
    }
    if (r >= 0) {
        r = th_json_parse(th_buf_cstr(&out), out.n, NULL, &answer, err);
    }
    if (r < 0) {
        (void)th_wrap(err, "ask %s for the login of %s", program, ref->domain);
        return th_hint(err, "log in again (docker login %s), or give --username and --password-stdin",
                       ref->domain);
    }
    const char *user = th_json_path_str(answer, "Username"), *secret = th_json_path_str(answer, "Secret");
    if (user && *user && secret) {
        put(ret, ref, user, secret);
    }
    explicit_bzero(out.p, out.n);
    return 0;
}

int th_registry_password(const struct th_cli *cli, struct th_buf *ret, struct th_err *err)
{
    const char *user = th_opt_str(cli, "username");
    if ((user != NULL) != th_opt_bool(cli, "password-stdin")) {
        (void)th_fail(err, TH_R_USAGE, "--username and --password-stdin go together");
        return th_hint(err, "echo \"$PASSWORD\" | thimble image pull --username NAME --password-stdin IMAGE");
    }
    if (!user) {
        return 0;
    }
    TH_TRY(th_io_read_fd(0, TH_LIMIT_CREDENTIALS_B, ret, err));
    while (ret->n > 0 && (ret->p[ret->n - 1] == '\n' || ret->p[ret->n - 1] == '\r')) {
        th_buf_truncate(ret, ret->n - 1);
    }
    if (ret->n == 0) {
        return th_fail(err, TH_R_USAGE, "there is no password on standard input");
    }
    return 0;
}

int th_registry_login(const struct th_cli *cli, const char *ref, struct th_str password,
                      struct th_buf *ret, struct th_err *err)
{
    TH_AUTO_REF struct th_ref r = {0};
    TH_TRY(th_ref_parse(ref, &r, err));
    const char *user = th_opt_str(cli, "username");
    if (user) {
        put(ret, &r, user, password.p);
        return 0;
    }
    th_autofree char *path = config_file();
    if (!path) {
        return 0;
    }
    th_autobuf struct th_buf text = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *config = NULL;
    TH_TRY(th_io_read_file(path, TH_LIMIT_CREDENTIALS_B, &text, err));
    if (th_json_parse(th_buf_cstr(&text), text.n, NULL, &config, err) < 0) {
        (void)th_wrap(err, "read the registry logins in %s", path);
        return th_hint(err, "mend or remove that file; docker login writes it anew");
    }
    const char *helper = helper_for(config, r.domain);
    if (helper) {
        return ask_helper(helper, &r, ret, err);
    }
    TH_AUTO(th_keyring) struct th_keyring *k = th_keyring_new();
    struct th_credential c;
    if (th_json_get(config, "auths")) {
        TH_TRY(th_keyring_add_config(k, (struct th_str){text.p, text.n}, err));
    }
    if (th_keyring_lookup(k, &r, 0, &c)) {
        put(ret, &r, c.user, c.password);
    }
    explicit_bzero(text.p, text.n);
    return 0;
}
