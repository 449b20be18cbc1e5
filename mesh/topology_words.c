/* mesh/topology_words.c -- nodes described by words:
 *
 *   node:N [numa:K] gpu:G|cpu:G [link:none|pairs|mesh|nvswitch] [nic:M] [gpu-bw:GBPS]
 *   [nic-bw:GBPS]
 *
 * N nodes of K NUMA nodes, G devices and M NICs each. Devices and NICs are spread evenly over the
 * NUMA nodes in order, each of which counts as a package of its own. */
#include "mesh/topology_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum word { NODE, NUMA, GPU, CPU, NIC, LINK, GPU_BW, NIC_BW, NUM_WORDS };
static const char *const keys[NUM_WORDS] = {"node", "numa", "gpu",    "cpu",
                                            "nic",  "link", "gpu-bw", "nic-bw"};
enum link { NONE, PAIRS, MESH, NVSWITCH, NUM_LINKS };
static const char *const links[NUM_LINKS] = {"none", "pairs", "mesh", "nvswitch"};

struct words {
    int count[LINK]; /* node, numa, gpu, cpu, nic; 0: not given */
    enum link link;
    double gbps[NUM_WORDS]; /* of GPU_BW and NIC_BW; 0: not given */
    int is_given[NUM_WORDS];
};

/* The word whose key starts the text, or NUM_WORDS. */
static enum word word_at(const char *text)
{
    const size_t length = strcspn(text, ":");
    for (enum word w = 0; w < NUM_WORDS; w++) {
        if (text[length] == ':' && strlen(keys[w]) == length && strncmp(text, keys[w], length) == 0)
            return w;
    }
    return NUM_WORDS;
}

int tv_topology_is_words(const char *text)
{
    return word_at(text + strspn(text, " \t")) != NUM_WORDS;
}

static tv_status_t parse_count(const char *token, const char *value, int max, int *count_out)
{
    char *end;
    const long count = strtol(value, &end, 10);
    if (*value < '0' || *value > '9' || *end != '\0' || count < 1 || count > max)
        return TV_ERR(TV_INVALID, "topology: %s: not a count from 1 to %d", token, max);
    *count_out = (int)count;
    return TV_OK;
}

static tv_status_t parse_gbps(const char *token, const char *value, double *gbps_out)
{
    char *end;
    const double gbps = strtod(value, &end);
    if (end == value || *end != '\0' || !(gbps >= 1e-3 && gbps <= 1e6))
        return TV_ERR(TV_INVALID, "topology: %s: not a rate in GB/s from 0.001 to 1000000", token);
    *gbps_out = gbps;
    return TV_OK;
}

static tv_status_t parse_link(const char *token, const char *value, enum link *link_out)
{
    for (enum link l = 0; l < NUM_LINKS; l++) {
        if (strcmp(value, links[l]) == 0) {
            *link_out = l;
            return TV_OK;
        }
    }
    return TV_ERR(TV_INVALID, "topology: %s: not none, pairs, mesh or nvswitch", token);
}

static tv_status_t parse_word(const char *token, struct words *words)
{
    const enum word word = word_at(token);
    if (word == NUM_WORDS)
        return TV_ERR(TV_INVALID,
                      "topology: \"%s\": not one of node:N numa:K gpu:G cpu:G "
                      "link:none|pairs|mesh|nvswitch nic:M gpu-bw:GBPS nic-bw:GBPS",
                      token);
    if (words->is_given[word])
        return TV_ERR(TV_INVALID, "topology: %s: given twice", token);
    words->is_given[word] = 1;
    const char *value = token + strlen(keys[word]) + 1;
    if (word == LINK)
        return parse_link(token, value, &words->link);
    if (word == GPU_BW || word == NIC_BW)
        return parse_gbps(token, value, &words->gbps[word]);
    return parse_count(token, value, word == NODE ? TV_TOPO_MAX_NODES : TV_TOPO_MAX_DEVICES,
                       &words->count[word]);
}

static tv_status_t parse_words(char *text, const char *original, struct words *words)
{
    *words = (struct words){.count = {[NODE] = 1, [NUMA] = 1, [NIC] = 1}};
    char *rest = NULL;
    for (char *token = strtok_r(text, " \t\r\n", &rest); token != NULL;
         token = strtok_r(NULL, " \t\r\n", &rest))
        TV_TRY(parse_word(token, words));
    if (words->is_given[GPU] == words->is_given[CPU])
        return TV_ERR(TV_INVALID, "topology: \"%s\": wants either gpu:G or cpu:G", original);
    if (words->is_given[CPU] && words->is_given[LINK])
        return TV_ERR(TV_INVALID, "topology: \"%s\": link:%s joins GPUs, not CPUs", original,
                      links[words->link]);
    return TV_OK;
}

static void fill_links(enum link link, struct tv_node_shape *shape)
{
    const int G = shape->num_gpus;
    for (int i = 0; i < G; i++) {
        for (int j = 0; j < G; j++) {
            double *rate = &shape->links[i * G + j];
            if (link == MESH && i != j)
                *rate = shape->gpu_gbps / (G - 1);
            else if (link == PAIRS && i != j && i / 2 == j / 2)
                *rate = shape->gpu_gbps;
        }
    }
}

static void fill_devices(struct tv_node_shape *shape)
{
    const int G = shape->num_gpus, M = shape->num_nics, K = shape->num_numas;
    for (int n = 0; n < M; n++) {
        struct tv_nic *nic = &shape->nics[n];
        *nic = (struct tv_nic){.numa = n * K / M, .pcie_switch = -1, .gbps = shape->nic_gbps / M};
        snprintf(nic->name, sizeof(nic->name), "nic%d", n);
    }
    for (int g = 0; g < G; g++) {
        struct tv_gpu *gpu = &shape->gpus[g];
        const int numa = g * K / G, nic = g * M / G;
        *gpu = (struct tv_gpu){.numa = numa, .package = numa, .pcie_switch = -1, .nic = -1};
        if (shape->nics[nic].numa == numa)
            gpu->nic = nic;
    }
}

static tv_status_t fill_shape(const struct words *words, struct tv_node_shape *shape)
{
    const int is_cpu = words->is_given[CPU];
    const int G = words->count[is_cpu ? CPU : GPU], M = words->count[NIC], K = words->count[NUMA];
    const double link_gbps = words->link == NONE ? TV_GBPS_PCIE : TV_GBPS_NVLINK;
    *shape = (struct tv_node_shape){
        .gpu_gbps = words->is_given[GPU_BW] ? words->gbps[GPU_BW] : link_gbps,
        .nic_gbps = M * (words->is_given[NIC_BW] ? words->gbps[NIC_BW] : TV_GBPS_NIC),
        .links_kind = words->link == NVSWITCH ? TV_LINKS_SWITCH
                      : is_cpu                ? TV_LINKS_UNKNOWN
                                              : TV_LINKS_MATRIX,
        .is_cpu = is_cpu,
        .gpus = calloc((size_t)G, sizeof(*shape->gpus)),
        .nics = calloc((size_t)M, sizeof(*shape->nics)),
        .numas = calloc((size_t)K, sizeof(*shape->numas))};
    if (shape->links_kind == TV_LINKS_MATRIX)
        shape->links = calloc((size_t)G * (size_t)G, sizeof(*shape->links));
    if (shape->gpus == NULL || shape->nics == NULL || shape->numas == NULL ||
        (shape->links_kind == TV_LINKS_MATRIX && shape->links == NULL))
        return TV_ERR(TV_NO_MEMORY, "a node of %d devices", G);
    shape->num_gpus = G;
    shape->num_nics = M;
    for (int k = 0; k < K; k++) {
        shape->numas[k] = (struct tv_numa){.os_index = k, .package = k, .cpus = strdup("")};
        shape->num_numas = k + 1;
        if (shape->numas[k].cpus == NULL)
            return TV_ERR(TV_NO_MEMORY, "a node of %d devices", G);
    }
    fill_devices(shape);
    if (shape->links_kind == TV_LINKS_MATRIX)
        fill_links(words->link, shape);
    return TV_OK;
}

tv_status_t tv_topology_parse_words(const char *text, int *num_nodes_out,
                                    struct tv_node_shape *shape_out)
{
    char *copy = strdup(text);
    if (copy == NULL)
        return TV_ERR(TV_NO_MEMORY, "topology: %zu bytes of words", strlen(text));
    struct words words;
    const tv_status_t status = parse_words(copy, text, &words);
    free(copy);
    TV_TRY(status);
    struct tv_node_shape shape;
    const tv_status_t filled = fill_shape(&words, &shape);
    if (filled != TV_OK) {
        tv_node_shape_free(&shape);
        return filled;
    }
    *num_nodes_out = words.count[NODE];
    *shape_out = shape;
    return TV_OK;
}
