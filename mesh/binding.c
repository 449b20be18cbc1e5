/* mesh/binding.c -- from a plan to what the kernel does: bound, read back, and said. */
#include "mesh/binding.h"
#include "base/log.h"
#include <errno.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

const char *tv_bind_kind_name(tv_bind_kind_t kind)
{
    static const char *const names[] = {"none", "own", "shared", "kept"};
    return (unsigned)kind < sizeof(names) / sizeof(names[0]) ? names[kind] : "unknown";
}

tv_status_t tv_cpu_mask_now(struct tv_cpu_mask *mask_out)
{
    struct tv_cpu_mask mask = {0};
    if (sched_getaffinity(0, sizeof(mask), (cpu_set_t *)(void *)&mask) != 0)
        return TV_ERR(TV_UNSUPPORTED, "the CPUs of this thread cannot be read: %s",
                      strerror(errno));
    *mask_out = mask;
    return TV_OK;
}

/* The kernel's own words, e.g. "0-3": a line of /proc that starts with `key`. */
static void kernel_view(const char *key, char *text_out, size_t bytes)
{
    char line[4096];
    text_out[0] = '\0';
    FILE *status = fopen("/proc/thread-self/status", "r");
    while (status != NULL && fgets(line, sizeof(line), status) != NULL) {
        if (strncmp(line, key, strlen(key)) != 0)
            continue;
        const char *value = line + strlen(key) + strspn(line + strlen(key), ": \t");
        snprintf(text_out, bytes, "%.*s", (int)strcspn(value, "\n"), value);
    }
    if (status != NULL)
        fclose(status);
}

tv_status_t tv_bind_thread(const struct tv_cpu_mask *mask)
{
    char asked[TV_BIND_TEXT], kernel[TV_BIND_TEXT];
    const int failed =
        sched_setaffinity(0, sizeof(*mask), (const cpu_set_t *)(const void *)mask) != 0;
    const int error = errno;
    tv_cpu_mask_text(mask, asked, sizeof(asked));
    kernel_view("Cpus_allowed_list", kernel, sizeof(kernel));
    if (failed)
        return TV_ERR(TV_UNSUPPORTED, "binding to CPUs %s failed (%s); in force: %s", asked,
                      strerror(error), kernel);
    if (kernel[0] != '\0' && strcmp(asked, kernel) != 0)
        return TV_ERR(TV_UNSUPPORTED, "binding to CPUs %s gave %s", asked, kernel);
    return TV_OK;
}

/* With one NUMA node there is nothing to choose. */
static int num_numas(const struct tv_machine *machine)
{
    struct tv_cpu_mask numas = {0};
    for (int c = 0; c < machine->num_cpus; c++)
        tv_cpu_mask_add(&numas, machine->cpus[c].numa);
    return tv_cpu_mask_count(&numas);
}

static tv_status_t bind_memory(const struct tv_machine *machine, const struct tv_cpu_mask *numas,
                               struct tv_binding *binding)
{
    char text[TV_BIND_TEXT];
    const int num = tv_cpu_mask_count(numas);
    if (num == 0 || num == num_numas(machine))
        return TV_OK;
    tv_cpu_mask_text(numas, text, sizeof(text));
    /* The kernel's count is one more than the bits it reads. */
    if (syscall(SYS_set_mempolicy, MPOL_BIND, numas->bits, 1024ul + 1) != 0)
        return TV_ERR(TV_UNSUPPORTED,
                      "binding memory to NUMA node(s) %s failed (%s); it goes where it is touched",
                      text, strerror(errno));
    snprintf(binding->memory, sizeof(binding->memory), "%s", text);
    return TV_OK;
}

/* ---- the ranks under one kernel ---- */

struct group {
    int num_ranks, here;
    struct tv_cpu_mask *masks; /* [num_ranks] before binding */
    struct tv_bind_share *shares;
    int *wishes;         /* [num_ranks] NUMA nodes of their GPUs, or -1 */
    struct tv_cpu *cpus; /* those of the machine that some rank may use */
    int num_cpus;
};

static void group_free(struct group *group)
{
    free(group->masks);
    free(group->shares);
    free(group->wishes);
    free(group->cpus);
}

static tv_status_t group_alloc(struct group *group, const struct tv_machine *machine)
{
    const size_t n = (size_t)group->num_ranks;
    group->masks = calloc(n, sizeof(*group->masks));
    group->shares = calloc(n, sizeof(*group->shares));
    group->wishes = calloc(n, sizeof(*group->wishes));
    group->cpus = calloc((size_t)machine->num_cpus + 1, sizeof(*group->cpus));
    if (group->masks == NULL || group->shares == NULL || group->wishes == NULL ||
        group->cpus == NULL)
        return TV_ERR(TV_NO_MEMORY, "binding of %d ranks", group->num_ranks);
    return TV_OK;
}

static tv_status_t gather_masks(struct group *group, const struct tv_nodes *nodes,
                                const struct tv_machine *machine, int numa)
{
    struct tv_request *request = NULL;
    struct tv_cpu_mask mine = {0};
    if (tv_cpu_mask_now(&mine) != TV_OK) { /* more CPUs than a mask holds: as if free to use all */
        for (int c = 0; c < machine->num_cpus; c++)
            tv_cpu_mask_add(&mine, machine->cpus[c].os_index);
    }
    TV_TRY(tv_comm_all_gather(nodes->kernel, &mine, group->masks, (int64_t)sizeof(mine), TV_U8,
                              NULL, &request));
    TV_TRY(tv_request_wait(&request));
    TV_TRY(tv_comm_all_gather(nodes->kernel, &numa, group->wishes, 1, TV_I32, NULL, &request));
    TV_TRY(tv_request_wait(&request));
    for (int c = 0; c < machine->num_cpus; c++) {
        int is_usable = 0;
        for (int r = 0; r < group->num_ranks; r++)
            is_usable |= tv_cpu_mask_has(&group->masks[r], machine->cpus[c].os_index);
        if (is_usable)
            group->cpus[group->num_cpus++] = machine->cpus[c];
    }
    return TV_OK;
}

/* A launcher that binds gives ranks different masks. */
static int is_bound_already(const struct group *group)
{
    for (int r = 1; r < group->num_ranks; r++) {
        if (memcmp(&group->masks[0], &group->masks[r], sizeof(group->masks[0])) != 0)
            return 1;
    }
    return 0;
}

static tv_status_t bind_to_share(const struct tv_machine *machine,
                                 const struct tv_bind_share *share, struct tv_binding *binding)
{
    TV_TRY(tv_bind_thread(&share->cpus));
    binding->kind = share->is_shared ? TV_BIND_SHARED : TV_BIND_OWN;
    return bind_memory(machine, &share->numas, binding);
}

/* What is in force now. */
static void read_back(const struct tv_machine *machine, struct tv_binding *binding)
{
    struct tv_cpu_mask mask;
    if (tv_cpu_mask_now(&mask) != TV_OK)
        return;
    binding->num_cpus = tv_cpu_mask_count(&mask);
    kernel_view("Cpus_allowed_list", binding->cpus, sizeof(binding->cpus));
    if (binding->cpus[0] == '\0') /* without /proc */
        tv_cpu_mask_text(&mask, binding->cpus, sizeof(binding->cpus));
    while (binding->place < machine->num_cpus &&
           !tv_cpu_mask_has(&mask, machine->cpus[binding->place].os_index))
        binding->place++;
}

/* Slurm since 22.05 does not hand --cpus-per-task of sbatch on to srun. */
static tv_status_t check_slurm(struct tv_comm *world, const struct tv_nodes *nodes,
                               const struct tv_binding *binding)
{
    const char *value = getenv("SLURM_CPUS_PER_TASK");
    const int asked = value != NULL ? atoi(value) : 0;
    char text[256];
    snprintf(text, sizeof(text),
             "SLURM_CPUS_PER_TASK is %d, but a rank on %s may use %d CPU(s) (%s); give srun "
             "--cpus-per-task too",
             asked, nodes->names[nodes->here], binding->num_cpus, binding->cpus);
    return tv_warn_once(world, asked > binding->num_cpus ? text : NULL);
}

static tv_status_t say(struct tv_comm *world, const struct tv_nodes *nodes,
                       const struct group *group, const struct tv_binding *binding,
                       const char *problem)
{
    char text[384];
    const char *node = nodes->names[nodes->here];
    TV_TRY(check_slurm(world, nodes, binding));
    snprintf(text, sizeof(text),
             "machine of %s: %d ranks share %d CPU(s) (%s); none has a core of its own", node,
             group->num_ranks, group->num_cpus, binding->cpus);
    const int is_speaker = group->here == 0 && group->num_cpus < group->num_ranks;
    TV_TRY(tv_warn_once(world, is_speaker ? text : NULL));
    snprintf(text, sizeof(text), "rank %d on %s: %s", tv_comm_rank(world), node, problem);
    TV_TRY(tv_warn_once(world, problem[0] != '\0' ? text : NULL));
    tv_log(TV_LOG_DEBUG, "rank %d on %s: binding %s, CPUs %s%s%s", tv_comm_rank(world), node,
           tv_bind_kind_name(binding->kind), binding->cpus,
           binding->memory[0] != '\0' ? ", memory of NUMA node(s) " : "", binding->memory);
    return TV_OK;
}

static tv_status_t bind_group(struct tv_comm *world, const struct tv_nodes *nodes,
                              const struct tv_machine *machine, int is_wanted, int numa,
                              struct group *group, struct tv_binding *binding)
{
    int first_failed;
    char problem[256] = "";
    TV_TRY(tv_comm_agree(world, group_alloc(group, machine), &first_failed));
    TV_TRY(gather_masks(group, nodes, machine, numa));
    tv_status_t status = TV_OK;
    if (is_wanted && is_bound_already(group))
        binding->kind = TV_BIND_KEPT;
    else if (is_wanted)
        status = tv_binding_plan(group->num_cpus, group->cpus, group->num_ranks, group->wishes,
                                 group->shares);
    TV_TRY(tv_comm_agree(world, status, &first_failed));
    if (is_wanted && binding->kind != TV_BIND_KEPT &&
        bind_to_share(machine, &group->shares[group->here], binding) != TV_OK)
        snprintf(problem, sizeof(problem), "%s", tv_error_message());
    else if (numa >= 0 && group->shares[group->here].misses_wish)
        snprintf(problem, sizeof(problem), "no CPU of its GPU's NUMA node %d may be used", numa);
    read_back(machine, binding);
    return say(world, nodes, group, binding, problem);
}

tv_status_t tv_bind(struct tv_comm *world, const struct tv_nodes *nodes,
                    const struct tv_machine *machine, int is_wanted, int numa,
                    struct tv_binding *binding_out)
{
    struct group group = {.num_ranks = tv_comm_size(nodes->kernel),
                          .here = tv_comm_rank(nodes->kernel)};
    struct tv_binding binding = {.kind = TV_BIND_NONE};
    const tv_status_t status = bind_group(world, nodes, machine, is_wanted, numa, &group, &binding);
    group_free(&group);
    if (status == TV_OK)
        *binding_out = binding;
    return status;
}
