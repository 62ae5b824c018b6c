/* Stands in for the driver's management library: says what the file says that STAND_IN_GPUS names.

   Its lines, in the order of the bus (a name has no spaces; an error is the library's number, 0 for none):

       init ERROR
       gpu UUID NAME TOTAL FREE MAJOR MINOR DIVIDED ERROR
       mig UUID NAME TOTAL FREE ERROR

   An instance (mig) is part of the GPU above it. ERROR is what a question for memory is answered with. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, MOST = 16 };

struct device {
    char uuid[80], name[80];
    unsigned long long total, free;
    int major, minor, divided, error, instances;
    struct device *instance[MOST];
};

struct memory {
    unsigned long long total, free, used;
};

static struct device devices[MOST * 4], *gpus[MOST];
static int count;

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    const char *path = getenv("STAND_IN_GPUS");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[512];
    int error = OK, used = 0;
    count = 0;
    if (!file) return 12;
    while (fgets(line, sizeof line, file) && used < MOST * 4) {
        struct device *it = &devices[used++];
        memset(it, 0, sizeof *it);
        if (sscanf(line, "init %d", &error) == 1) continue;
        if (sscanf(line, "gpu %79s %79s %llu %llu %d %d %d %d", it->uuid, it->name, &it->total, &it->free, &it->major,
                   &it->minor, &it->divided, &it->error) == 8 && count < MOST) {
            gpus[count++] = it;
        } else if (count && gpus[count - 1]->instances < MOST &&
                   sscanf(line, "mig %79s %79s %llu %llu %d", it->uuid, it->name, &it->total, &it->free, &it->error) == 5) {
            gpus[count - 1]->instance[gpus[count - 1]->instances++] = it;
        }
    }
    fclose(file);
    return error;
}

int nvmlShutdown(void) { return OK; }

const char *nvmlErrorString(int error) { return error == 999 ? "Unknown Error" : "Some Error"; }

int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    snprintf(text, size, "600.1");
    return OK;
}

int nvmlSystemGetCudaDriverVersion(int *version) {
    *version = 12080;
    return OK;
}

int nvmlDeviceGetCount_v2(unsigned *number) {
    *number = count;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **it) {
    if (index >= (unsigned)count) return NOT_FOUND;
    *it = gpus[index];
    return OK;
}

int nvmlDeviceGetUUID(struct device *it, char *text, unsigned size) {
    snprintf(text, size, "%s", it->uuid);
    return OK;
}

int nvmlDeviceGetName(struct device *it, char *text, unsigned size) {
    snprintf(text, size, "%s", it->name);
    return OK;
}

int nvmlDeviceGetMemoryInfo(struct device *it, struct memory *memory) {
    if (it->error) return it->error;
    memory->total = it->total;
    memory->free = it->free;
    memory->used = it->total - it->free;
    return OK;
}

int nvmlDeviceGetCudaComputeCapability(struct device *it, int *major, int *minor) {
    if (!it->major) return NOT_SUPPORTED;
    *major = it->major;
    *minor = it->minor;
    return OK;
}

int nvmlDeviceGetMigMode(struct device *it, unsigned *current, unsigned *pending) {
    if (it->major < 8) return NOT_SUPPORTED;
    *current = *pending = it->divided;
    return OK;
}

/* Between two instances there is a number that none has. */
int nvmlDeviceGetMaxMigDeviceCount(struct device *it, unsigned *number) {
    *number = 2 * it->instances + 1;
    return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct device *it, unsigned index, struct device **instance) {
    if (index % 2 == 0) return NOT_FOUND;
    *instance = it->instance[index / 2];
    return OK;
}
