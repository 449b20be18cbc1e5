/* mesh/topology_driver.c -- which GPUs are this process's, and what they are to a node's shape. */
#include "mesh/topology_driver_internal.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tv_driver_free(struct tv_driver *driver)
{
    free(driver->gpus);
    free(driver->num_links);
    *driver = (struct tv_driver){0};
}

int tv_driver_find(const struct tv_driver *driver, uint64_t address)
{
    for (int g = 0; g < driver->num_gpus; g++) {
        if (driver->gpus[g].address == address)
            return g;
    }
    return -1;
}

/* ---- CUDA_VISIBLE_DEVICES ---- */

static int has_one_model(const struct tv_driver *driver)
{
    for (int g = 1; g < driver->num_gpus; g++) {
        if (strcmp(driver->gpus[g].model, driver->gpus[0].model) != 0)
            return 0;
    }
    return 1;
}

/* The only GPU whose UUID starts so, or -1. */
static int find_uuid(const struct tv_driver *driver, const char *start)
{
    int found = -1;
    for (int g = 0; g < driver->num_gpus; g++) {
        if (strncmp(driver->gpus[g].uuid, start, strlen(start)) != 0)
            continue;
        if (found >= 0)
            return -1;
        found = g;
    }
    return found;
}

/* *gpu_out -1: the list ends here, as a negative number ends CUDA's. */
static tv_status_t read_word(const struct tv_driver *driver, const char *word, int is_by_pci,
                             int *gpu_out)
{
    static const char name[] = "CUDA_VISIBLE_DEVICES";
    char *end;
    const long number = strtol(word, &end, 10);
    const int is_number = end != word && *end == '\0';
    if (strncmp(word, "MIG-", 4) == 0)
        return TV_ERR(TV_INVALID,
                      "%s: %s is a part of a GPU, which peers cannot copy to; give "
                      "whole GPUs",
                      name, word);
    if (!is_number && strncmp(word, "GPU-", 4) != 0 && strcmp(word, "NoDevFiles") != 0)
        return TV_ERR(TV_INVALID, "%s: '%s' is neither a number nor a UUID", name, word);
    if (!is_number && word[0] == 'N') /* Slurm's word for a step without GPUs */
        *gpu_out = -1;
    else if (!is_number && find_uuid(driver, word) < 0)
        return TV_ERR(TV_INVALID, "%s: %s is the UUID of no GPU here, or of several", name, word);
    else if (!is_number)
        *gpu_out = find_uuid(driver, word);
    else if (number < 0)
        *gpu_out = -1;
    else if (number >= driver->num_gpus)
        return TV_ERR(TV_INVALID, "%s: GPU %ld where there %s %d", name, number,
                      driver->num_gpus == 1 ? "is" : "are", driver->num_gpus);
    else if (!is_by_pci && !has_one_model(driver))
        return TV_ERR(TV_INVALID,
                      "%s: CUDA numbers GPUs of different models by speed; set "
                      "CUDA_DEVICE_ORDER=PCI_BUS_ID, or give UUIDs",
                      name);
    else
        *gpu_out = (int)number;
    return TV_OK;
}

static tv_status_t read_list(const struct tv_driver *driver, char *text, int is_by_pci, int *order,
                             int *num)
{
    for (char *next = text; next != NULL && *text != '\0';) {
        const char *word = strsep(&next, ",");
        int gpu;
        TV_TRY(read_word(driver, word + strspn(word, " "), is_by_pci, &gpu));
        if (gpu < 0)
            break;
        for (int i = 0; i < *num; i++) {
            if (order[i] == gpu)
                return TV_ERR(TV_INVALID, "CUDA_VISIBLE_DEVICES: %s names a GPU a second time",
                              word);
        }
        order[(*num)++] = gpu;
    }
    return TV_OK;
}

tv_status_t tv_driver_visible(const struct tv_driver *driver, const char *text, int is_by_pci,
                              int *order_out, int *num_out)
{
    *num_out = 0;
    if (text == NULL) {
        for (int g = 0; g < driver->num_gpus; g++)
            order_out[(*num_out)++] = g;
        return TV_OK;
    }
    char *copy = strdup(text);
    if (copy == NULL)
        return TV_ERR(TV_NO_MEMORY, "CUDA_VISIBLE_DEVICES");
    const tv_status_t status = read_list(driver, copy, is_by_pci, order_out, num_out);
    free(copy);
    return status;
}

tv_status_t tv_driver_add(struct tv_driver *driver, uint64_t address, int *index_out)
{
    const size_t num = (size_t)driver->num_gpus;
    struct tv_driver_gpu *grown = realloc(driver->gpus, (num + 1) * sizeof(*grown));
    if (grown == NULL)
        return TV_ERR(TV_NO_MEMORY, "%zu GPUs", num + 1);
    grown[num] = (struct tv_driver_gpu){.address = address, .numa = -1};
    driver->gpus = grown;
    free(driver->num_links);
    driver->num_links = NULL;
    *index_out = driver->num_gpus++;
    return TV_OK;
}

static int ascending(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

tv_status_t tv_driver_keep(struct tv_driver *driver, const int *order, int num)
{
    const int G = driver->num_gpus;
    int *kept = malloc(((size_t)num + 1) * sizeof(*kept));
    if (kept == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d GPUs", num);
    if (num > 0)
        memcpy(kept, order, (size_t)num * sizeof(*kept));
    qsort(kept, (size_t)num, sizeof(*kept), ascending);
    for (int i = 0; i < num; i++) { /* towards the front: nothing is overwritten that is needed */
        driver->gpus[i] = driver->gpus[kept[i]];
        for (int j = 0; j < num && driver->num_links != NULL; j++)
            driver->num_links[i * num + j] = driver->num_links[kept[i] * G + kept[j]];
    }
    driver->num_gpus = num;
    free(kept);
    return TV_OK;
}

/* ---- a node's shape ---- */

static void take_out_hidden(const struct tv_driver *driver, struct tv_pci_list *list,
                            int *num_hidden)
{
    int num = 0;
    for (int i = 0; i < list->num; i++) {
        const struct tv_pci_device *device = &list->devices[i];
        const int is_hidden = device->is_gpu && tv_driver_find(driver, device->address) < 0;
        *num_hidden += is_hidden;
        if (!is_hidden)
            list->devices[num++] = *device;
    }
    list->num = num;
}

static int is_in(const struct tv_pci_list *list, const struct tv_driver_gpu *gpu)
{
    for (int i = 0; i < list->num; i++) {
        if (list->devices[i].address == gpu->address)
            return 1;
    }
    return 0;
}

tv_status_t tv_driver_apply(const struct tv_driver *driver, struct tv_pci_list *list,
                            struct tv_warnings *warnings)
{
    enum { NVIDIA = 0x10de, CLASS_3D = 0x0302 };
    int num_hidden = 0;
    take_out_hidden(driver, list, &num_hidden);
    if (num_hidden > 0)
        TV_TRY(tv_warn(warnings,
                       "%d GPU(s) of the machine are not for this job (its control group, or "
                       "CUDA_VISIBLE_DEVICES)",
                       num_hidden));
    for (int g = 0; g < driver->num_gpus; g++) {
        const struct tv_driver_gpu *gpu = &driver->gpus[g];
        struct tv_pci_device device = {.address = gpu->address,
                                       .class_id = CLASS_3D,
                                       .vendor = NVIDIA,
                                       .is_gpu = 1,
                                       .numa = gpu->numa,
                                       .package = -1};
        if (!is_in(list, gpu))
            TV_TRY(tv_pci_append(list, &device));
    }
    for (int i = 0; i < list->num; i++) {
        struct tv_pci_device *device = &list->devices[i];
        const int g = device->is_gpu ? tv_driver_find(driver, device->address) : -1;
        if (g < 0)
            continue;
        device->numa = device->numa < 0 ? driver->gpus[g].numa : device->numa;
        if (driver->gpus[g].model[0] != '\0')
            snprintf(device->name, sizeof(device->name), "%s", driver->gpus[g].model);
    }
    return TV_OK;
}

tv_status_t tv_driver_links(const struct tv_driver *driver, struct tv_node_shape *shape,
                            struct tv_warnings *warnings)
{
    if (driver->num_links == NULL)
        return TV_OK;
    return tv_shape_count_links(shape, driver->num_links, driver->gbps_per_link, warnings);
}
