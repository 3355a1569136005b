/* Talking to nftables: transactions, a pod's own rules, and what the kernel remembers.
 *
 * libnftables is not thread-safe within a context: each call has its own. Its messages go to a
 * buffer and from there into our errors.
 *
 * Sets of session affinity are filled by the kernel. A change of the table keeps them (nfttable.c),
 * but an agent that starts anew does not know what its predecessor had loaded and replaces the table;
 * then the elements are read out first and put back in the same transaction. */
#include "base/io.h"
#include "base/json/json.h"
#include "base/log.h"
#include "vm/node/net/net_priv.h"
#include "vm/node/net/nfttable.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <nftables/libnftables.h>
#include <sched.h>
#include <sys/socket.h>

int th_nft_run(const char *text, struct th_json **ret_json, struct th_err *err)
{
    struct nft_ctx *c = nft_ctx_new(NFT_CTX_DEFAULT);
    if (!c) {
        return th_fail(err, TH_R_IO, "nftables cannot be reached");
    }
    (void)nft_ctx_buffer_output(c);
    (void)nft_ctx_buffer_error(c);
    if (ret_json) {
        nft_ctx_output_set_flags(c, NFT_CTX_OUTPUT_JSON);
    }
    int r = nft_run_cmd_from_buffer(c, text) == 0 ? 0 : -TH_R_IO;
    if (r < 0) {
        const char *msg = nft_ctx_get_error_buffer(c);
        /* The first line says what, the second is the rule that it is about. */
        const char *end = msg ? strchr(msg, '\n') : NULL;
        const char *rule = end ? end + 1 : "";
        r = th_fail(err, TH_R_IO, "nftables: %.*s: %.*s", end ? (int)(end - msg) : 200, msg ? msg : "failed",
                    (int)strcspn(rule, "\n"), rule);
    } else if (ret_json) {
        const char *out = nft_ctx_get_output_buffer(c);
        r = th_json_parse_cstr(out ? out : "", ret_json, err);
    }
    nft_ctx_free(c);
    return r;
}

/* ---- has anybody else changed rules? ---- */

uint32_t th_nft_generation(void)
{
    struct {
        struct nlmsghdr h;
        struct nfgenmsg g;
    } req = {.h = {.nlmsg_len = sizeof(req),
                   .nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN,
                   .nlmsg_flags = NLM_F_REQUEST},
             .g = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0}};
    char buf[1024] __attribute__((aligned(NLMSG_ALIGNTO)));
    struct sockaddr_nl to = {.nl_family = AF_NETLINK};
    th_autoclose int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (fd < 0 || sendto(fd, &req, sizeof(req), 0, (struct sockaddr *)&to, sizeof(to)) < 0) {
        return 0;
    }
    ssize_t got = recv(fd, buf, sizeof(buf), 0);
    const struct nlmsghdr *h = (const struct nlmsghdr *)(const void *)buf;
    size_t off = NLMSG_LENGTH(NLMSG_ALIGN(sizeof(struct nfgenmsg)));
    while (got > 0 && h->nlmsg_type == req.h.nlmsg_type - NFT_MSG_GETGEN + NFT_MSG_NEWGEN &&
           off + NLA_HDRLEN <= (size_t)got) {
        const struct nlattr *a = (const struct nlattr *)(const void *)(buf + off);
        if (a->nla_len < NLA_HDRLEN) {
            return 0;
        }
        if (a->nla_type == NFTA_GEN_ID && off + NLA_HDRLEN + sizeof(uint32_t) <= (size_t)got) {
            uint32_t id;
            memcpy(&id, buf + off + NLA_HDRLEN, sizeof(id));
            return ntohl(id);
        }
        off += NLA_ALIGN(a->nla_len);
    }
    return 0;
}

/* ---- affinity over a restart of the agent ---- */

/* {"elem": {"val": "10.0.0.1", "timeout": 10800, "expires": 10000}} */
static void remember(const char *set, const struct th_json *e, struct th_buf *b)
{
    const struct th_json *elem = th_json_get(e, "elem");
    const char *ip = th_json_path_str(elem, "val");
    int64_t timeout = th_json_path_int(elem, "timeout", 0), left = th_json_path_int(elem, "expires", 0);
    if (th_is_ip4(ip) && left > 0) {
        th_buf_printf(b, "add element ip thimble %s { %s", set, ip);
        if (timeout > 0) {
            th_buf_printf(b, " timeout %llds", (long long)timeout);
        }
        th_buf_printf(b, " expires %llds }\n", (long long)left);
    }
}

void th_nft_remembered(const struct th_nft_table *t, struct th_buf *ret)
{
    TH_AUTO(th_json) struct th_json *all = NULL;
    th_autostrv struct th_strv names = TH_STRV_INIT;
    th_nft_set_names(t, TH_AFFINITY, &names);
    if (names.n == 0 || th_nft_run("list table ip thimble", &all, NULL) < 0) {
        return; /* no table: nothing to remember */
    }
    const struct th_json *list = th_json_get(all, "nftables");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *set = th_json_get(th_json_at(list, i), "set");
        const char *name = th_json_path_str(set, "name");
        const struct th_json *elems = th_json_get(set, "elem");
        for (size_t k = 0; name && th_strv_has(&names, name) && k < th_json_len(elems); k++) {
            remember(name, th_json_at(elems, k), ret);
        }
    }
}

/* ---- a pod's own rules ---- */

struct pod_job {
    int ns_fd;
    const char *text;
    int r;
    struct th_err *err;
};

static void *pod_thread(void *arg)
{
    struct pod_job *j = arg;
    /* /proc/sys/net shows the namespace of the thread that opens it */
    if (setns(j->ns_fd, CLONE_NEWNET) < 0) {
        j->r = th_fail_errno(j->err, errno, TH_R_IO, "entering the pod's network namespace");
        return NULL;
    }
    j->r = th_io_write_file("/proc/sys/net/ipv4/conf/all/route_localnet", "1", 1, 0644, j->err);
    j->r = j->r < 0 ? j->r : th_nft_run(j->text, NULL, j->err);
    return NULL;
}

int th_nft_pod(const char *netns_path, const struct th_net_opts *o, struct th_err *err)
{
    th_autoclose int fd = open(netns_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "open %s", netns_path);
    }
    th_autofree char *text = th_xasprintf(
        "add table ip thimble\ndelete table ip thimble\ntable ip thimble {\n"
        "\tchain output {\n\t\ttype nat hook output priority -100\n"
        "\t\tdnat ip prefix to ip daddr map { 127.%d.0.0/16 : %s }\n\t}\n"
        "\tchain postrouting {\n\t\ttype nat hook postrouting priority 100\n"
        "\t\toifname \"eth0\" ip saddr 127.0.0.0/8 masquerade\n\t}\n}\n",
        96 + o->profile_number, TH_LB_INSIDE_CIDR);
    struct pod_job j = {.ns_fd = fd, .text = text, .err = err};
    pthread_t t;
    int e = pthread_create(&t, NULL, pod_thread, &j);
    if (e != 0) {
        return th_fail_errno(err, e, TH_R_INTERNAL, "starting a thread");
    }
    pthread_join(t, NULL);
    return j.r;
}
