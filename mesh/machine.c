/* mesh/machine.c -- CPUs through hwloc, NICs from /sys/class/net. */
#include "mesh/machine.h"
#include <dirent.h>
#include <hwloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- CPUs ---- */

static int ancestor_index(hwloc_topology_t topology, hwloc_obj_t pu, hwloc_obj_type_t type)
{
    const hwloc_obj_t found = hwloc_get_ancestor_obj_by_type(topology, type, pu);
    return found != NULL ? (int)found->logical_index : -1;
}

/* The first NUMA node that the CPU is local to. */
static int numa_of(hwloc_topology_t topology, hwloc_obj_t pu)
{
    hwloc_obj_t numa = NULL;
    while ((numa = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, numa)) != NULL) {
        if (hwloc_bitmap_isset(numa->cpuset, pu->os_index))
            return (int)numa->os_index;
    }
    return -1;
}

static tv_status_t read_cpus(hwloc_topology_t topology, struct tv_machine *machine)
{
    const hwloc_const_cpuset_t allowed = hwloc_topology_get_allowed_cpuset(topology);
    const int num = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU);
    machine->cpus = calloc((size_t)(num > 0 ? num : 1), sizeof(*machine->cpus));
    if (machine->cpus == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d CPUs", num);
    hwloc_obj_t pu = NULL;
    while ((pu = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PU, pu)) != NULL) {
        if (!hwloc_bitmap_isset(allowed, pu->os_index))
            continue;
        machine->cpus[machine->num_cpus++] =
            (struct tv_cpu){(int32_t)pu->os_index, ancestor_index(topology, pu, HWLOC_OBJ_CORE),
                            numa_of(topology, pu), ancestor_index(topology, pu, HWLOC_OBJ_PACKAGE)};
    }
    return machine->num_cpus > 0 ? TV_OK : TV_ERR(TV_INVALID, "hwloc finds no CPU to use");
}

static tv_status_t load_cpus(const char *synthetic, struct tv_machine *machine)
{
    hwloc_topology_t topology;
    if (hwloc_topology_init(&topology) != 0)
        return TV_ERR(TV_NO_MEMORY, "hwloc topology");
    tv_status_t status = TV_OK;
    if (synthetic != NULL && hwloc_topology_set_synthetic(topology, synthetic) != 0)
        status = TV_ERR(TV_INVALID, "'%s' is no synthetic topology of hwloc", synthetic);
    if (status == TV_OK &&
        (hwloc_topology_set_flags(topology, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED) != 0 ||
         hwloc_topology_load(topology) != 0))
        status = TV_ERR(TV_INVALID, "hwloc cannot read this machine");
    if (status == TV_OK)
        status = read_cpus(topology, machine);
    hwloc_topology_destroy(topology);
    return status;
}

/* ---- NICs ---- */

static int read_word(const char *nic, const char *file, char *word, int bytes)
{
    char path[512];
    snprintf(path, sizeof(path), "/sys/class/net/%s/%s", nic, file);
    FILE *in = fopen(path, "r");
    if (in == NULL)
        return 0;
    const int got = fgets(word, bytes, in) != NULL; /* fails on a NIC that is down */
    fclose(in);
    if (got)
        word[strcspn(word, "\n")] = '\0';
    return got;
}

/* GB/s of a NIC that is up and says its speed, else 0. */
static double nic_rate(const char *nic)
{
    char word[32];
    enum { LOOPBACK = 772 };
    if (!read_word(nic, "type", word, sizeof(word)) || atoi(word) == LOOPBACK ||
        !read_word(nic, "operstate", word, sizeof(word)) || strcmp(word, "up") != 0 ||
        !read_word(nic, "speed", word, sizeof(word)))
        return 0;
    const double megabits = atof(word);
    return megabits > 0 ? megabits / 8000 : 0;
}

static int is_hardware(const char *nic)
{
    char path[512];
    snprintf(path, sizeof(path), "/sys/class/net/%s/device", nic);
    return access(path, F_OK) == 0;
}

/* The NICs with hardware; where there are none (containers), the fastest other one. */
static void choose_nics(struct tv_machine *machine)
{
    int num_hardware = 0, fastest = 0;
    for (int i = 0; i < machine->num_nics; i++) {
        struct tv_nic *nic = &machine->nics[i];
        if (nic->gbps > machine->nics[fastest].gbps)
            fastest = i;
        if (is_hardware(nic->name)) {
            const struct tv_nic found = *nic;
            machine->nics[i] = machine->nics[num_hardware];
            machine->nics[num_hardware++] = found;
        }
    }
    if (num_hardware == 0 && machine->num_nics > 0)
        machine->nics[num_hardware++] = machine->nics[fastest];
    machine->num_nics = num_hardware;
}

static int by_name(const void *a, const void *b)
{
    return tv_natural_order(((const struct tv_nic *)a)->name, ((const struct tv_nic *)b)->name);
}

static tv_status_t read_nics(struct tv_machine *machine)
{
    enum { MAX_NICS = 64 };
    machine->nics = calloc(MAX_NICS, sizeof(*machine->nics));
    if (machine->nics == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d NICs", MAX_NICS);
    DIR *folder = opendir("/sys/class/net");
    struct dirent *entry;
    while (folder != NULL && machine->num_nics < MAX_NICS && (entry = readdir(folder)) != NULL) {
        const double gbps = entry->d_name[0] == '.' ? 0 : nic_rate(entry->d_name);
        if (gbps == 0)
            continue;
        struct tv_nic *nic = &machine->nics[machine->num_nics++];
        *nic = (struct tv_nic){.numa = -1, .pcie_switch = -1, .gbps = gbps};
        snprintf(nic->name, sizeof(nic->name), "%.*s", TV_TOPO_NAME - 1, entry->d_name);
    }
    if (folder != NULL)
        closedir(folder);
    qsort(machine->nics, (size_t)machine->num_nics, sizeof(*machine->nics), by_name);
    choose_nics(machine);
    return TV_OK;
}

/* ---- the machine ---- */

tv_status_t tv_machine_read(const char *synthetic, struct tv_machine *machine_out)
{
    struct tv_machine machine = {0};
    tv_status_t status = load_cpus(synthetic, &machine);
    if (status == TV_OK && synthetic == NULL)
        status = read_nics(&machine);
    if (status != TV_OK) {
        tv_machine_free(&machine);
        return status;
    }
    *machine_out = machine;
    return TV_OK;
}

void tv_machine_free(struct tv_machine *machine)
{
    free(machine->cpus);
    free(machine->nics);
    *machine = (struct tv_machine){0};
}

/* Room for the tables, at least one byte each. */
static tv_status_t alloc_tables(int num_cpus, int num_nics, struct tv_machine *machine)
{
    struct tv_machine made = {.num_cpus = num_cpus, .num_nics = num_nics};
    made.cpus = calloc((size_t)num_cpus + 1, sizeof(*made.cpus));
    made.nics = calloc((size_t)num_nics + 1, sizeof(*made.nics));
    if (made.cpus == NULL || made.nics == NULL) {
        tv_machine_free(&made);
        return TV_ERR(TV_NO_MEMORY, "a machine of %d CPUs", num_cpus);
    }
    *machine = made;
    return TV_OK;
}

tv_status_t tv_machine_copy(const struct tv_machine *machine, struct tv_machine *copy_out)
{
    struct tv_machine copy;
    TV_TRY(alloc_tables(machine->num_cpus, machine->num_nics, &copy));
    for (int c = 0; c < copy.num_cpus; c++)
        copy.cpus[c] = machine->cpus[c];
    for (int n = 0; n < copy.num_nics; n++)
        copy.nics[n] = machine->nics[n];
    *copy_out = copy;
    return TV_OK;
}

tv_status_t tv_machine_broadcast(struct tv_comm *comm, int root, struct tv_machine *machine)
{
    int32_t counts[2] = {machine->num_cpus, machine->num_nics};
    int first_failed;
    tv_status_t status = TV_OK;
    TV_TRY(tv_comm_broadcast_now(comm, counts, 2, TV_I32, root));
    if (tv_comm_rank(comm) != root)
        status = alloc_tables(counts[0], counts[1], machine);
    TV_TRY(tv_comm_agree(comm, status, &first_failed));
    const int64_t cpu_bytes = counts[0] * (int64_t)sizeof(*machine->cpus);
    const int64_t nic_bytes = counts[1] * (int64_t)sizeof(*machine->nics);
    TV_TRY(tv_comm_broadcast_now(comm, machine->cpus, cpu_bytes, TV_U8, root));
    return tv_comm_broadcast_now(comm, machine->nics, nic_bytes, TV_U8, root);
}

tv_status_t tv_machine_share(const struct tv_nodes *nodes, const char *synthetic,
                             struct tv_machine *machine_out)
{
    struct tv_machine machine = {0};
    int first_failed;
    tv_status_t status = TV_OK;
    if (tv_comm_rank(nodes->local) == 0)
        status = tv_machine_read(synthetic, &machine);
    status = tv_comm_agree(nodes->local, status, &first_failed);
    if (status == TV_OK)
        status = tv_machine_broadcast(nodes->local, 0, &machine);
    if (status != TV_OK) {
        tv_machine_free(&machine);
        return status;
    }
    *machine_out = machine;
    return TV_OK;
}
