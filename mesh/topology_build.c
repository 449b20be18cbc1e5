/* mesh/topology_build.c -- make a topology piece by piece: shapes shared by equal nodes, warnings.
 */
#include "mesh/topology_internal.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *tv_topology_grown(void *items, int num, size_t item_bytes)
{
    if (num > 0 && (num & (num - 1)) != 0)
        return items;
    return realloc(items, (num == 0 ? 1 : 2 * (size_t)num) * item_bytes);
}

/* Append a sentence to a list of warnings. */
static tv_status_t append(int *num, char ***sentences, const char *format, va_list arguments)
{
    char **grown = tv_topology_grown(*sentences, *num, sizeof(*grown));
    if (grown == NULL)
        return TV_ERR(TV_NO_MEMORY, "a warning");
    *sentences = grown;
    char *sentence;
    if (vasprintf(&sentence, format, arguments) < 0)
        return TV_ERR(TV_NO_MEMORY, "a warning");
    grown[(*num)++] = sentence;
    return TV_OK;
}

tv_status_t tv_warn(struct tv_warnings *warnings, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const tv_status_t status = append(&warnings->num, &warnings->sentences, format, arguments);
    va_end(arguments);
    return status;
}

tv_status_t tv_topology_warn(struct tv_topology *topology, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const tv_status_t status =
        append(&topology->num_warnings, &topology->warnings, format, arguments);
    va_end(arguments);
    return status;
}

static void free_sentences(int num, char **sentences)
{
    for (int i = 0; i < num; i++)
        free(sentences[i]);
    free(sentences);
}

void tv_warnings_free(struct tv_warnings *warnings)
{
    free_sentences(warnings->num, warnings->sentences);
    *warnings = (struct tv_warnings){0};
}

void tv_node_shape_free(struct tv_node_shape *shape)
{
    for (int k = 0; k < shape->num_numas; k++)
        free(shape->numas[k].cpus);
    free(shape->gpus);
    free(shape->nics);
    free(shape->numas);
    free(shape->links);
    *shape = (struct tv_node_shape){0};
}

void tv_node_read_free(struct tv_node_read *node)
{
    tv_node_shape_free(&node->shape);
    tv_warnings_free(&node->warnings);
}

void tv_topology_free(struct tv_topology *topology)
{
    if (topology == NULL)
        return;
    for (int s = 0; s < topology->num_shapes; s++)
        tv_node_shape_free(&topology->shapes[s]);
    free_sentences(topology->num_warnings, topology->warnings);
    free(topology->nodes);
    free(topology->shapes);
    free(topology->switches);
    free(topology->domains);
    *topology = (struct tv_topology){0};
}

static int is_same_gpu(const struct tv_gpu *a, const struct tv_gpu *b)
{
    return strcmp(a->pci, b->pci) == 0 && strcmp(a->model, b->model) == 0 && a->numa == b->numa &&
           a->package == b->package && a->pcie_switch == b->pcie_switch && a->nic == b->nic;
}

static int is_same_nic(const struct tv_nic *a, const struct tv_nic *b)
{
    return strcmp(a->name, b->name) == 0 && strcmp(a->pci, b->pci) == 0 && a->numa == b->numa &&
           a->pcie_switch == b->pcie_switch && a->gbps == b->gbps;
}

static int is_same_numa(const struct tv_numa *a, const struct tv_numa *b)
{
    return a->os_index == b->os_index && a->package == b->package && strcmp(a->cpus, b->cpus) == 0;
}

static int is_same_link(const struct tv_node_shape *a, const struct tv_node_shape *b)
{
    if (a->links == NULL || b->links == NULL)
        return a->links == b->links;
    for (int i = 0; i < a->num_gpus * a->num_gpus; i++) {
        const int is_diagonal = i % (a->num_gpus + 1) == 0;
        if (!is_diagonal && a->links[i] != b->links[i])
            return 0;
    }
    return 1;
}

static int is_same_shape(const struct tv_node_shape *a, const struct tv_node_shape *b)
{
    if (a->num_gpus != b->num_gpus || a->num_nics != b->num_nics || a->num_numas != b->num_numas ||
        a->links_kind != b->links_kind || a->gpu_gbps != b->gpu_gbps ||
        a->nic_gbps != b->nic_gbps || a->gpu_seconds != b->gpu_seconds ||
        a->nic_seconds != b->nic_seconds || a->is_cpu != b->is_cpu)
        return 0;
    for (int g = 0; g < a->num_gpus; g++) {
        if (!is_same_gpu(&a->gpus[g], &b->gpus[g]))
            return 0;
    }
    for (int n = 0; n < a->num_nics; n++) {
        if (!is_same_nic(&a->nics[n], &b->nics[n]))
            return 0;
    }
    for (int k = 0; k < a->num_numas; k++) {
        if (!is_same_numa(&a->numas[k], &b->numas[k]))
            return 0;
    }
    return is_same_link(a, b);
}

tv_status_t tv_topology_add_shape(struct tv_topology *topology, struct tv_node_shape *shape,
                                  int *index_out)
{
    for (int s = 0; s < topology->num_shapes; s++) {
        if (is_same_shape(&topology->shapes[s], shape)) {
            tv_node_shape_free(shape);
            *index_out = s;
            return TV_OK;
        }
    }
    struct tv_node_shape *grown =
        tv_topology_grown(topology->shapes, topology->num_shapes, sizeof(*grown));
    if (grown == NULL) {
        tv_node_shape_free(shape);
        return TV_ERR(TV_NO_MEMORY, "%d shapes of nodes", topology->num_shapes + 1);
    }
    topology->shapes = grown;
    grown[topology->num_shapes] = *shape;
    *shape = (struct tv_node_shape){0};
    *index_out = topology->num_shapes++;
    return TV_OK;
}

tv_status_t tv_topology_add_node(struct tv_topology *topology, const char *name, int shape)
{
    if (topology->num_nodes == TV_TOPO_MAX_NODES)
        return TV_ERR(TV_INVALID, "topology: more than %d nodes", TV_TOPO_MAX_NODES);
    struct tv_node *grown = tv_topology_grown(topology->nodes, topology->num_nodes, sizeof(*grown));
    if (grown == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d nodes", topology->num_nodes + 1);
    topology->nodes = grown;
    struct tv_node *node = &grown[topology->num_nodes++];
    *node = (struct tv_node){.shape = shape, .leaf = -1, .domain = -1};
    snprintf(node->name, sizeof(node->name), "%s", name);
    return TV_OK;
}
