# Two images from one file:
#   docker build --target service -t pinsage .            serves; no torch, about 0.6 GB
#   docker build --target offline -t pinsage-offline .    trains, publishes, takes reindex jobs
# Where torch comes from is pip's business: --build-arg PIP_EXTRA_INDEX_URL=… names an index with CPU-only builds.

ARG PYTHON=3.12-slim-bookworm

# ---- the environment of the service, built where there is a compiler ----
FROM python:${PYTHON} AS service-build
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
# Not for this builder's processor alone: the image must run on any.
ENV HNSWLIB_NO_NATIVE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/pinsage/bin:$PATH
RUN python -m venv /opt/pinsage
WORKDIR /src
# First what changes seldom: the dependencies, so that a changed line of ours compiles nothing again.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > needs.txt \
    && pip install -c constraints.txt -r needs.txt
COPY . .
RUN pip install --no-deps .

# ---- the same with the training libraries ----
FROM service-build AS offline-build
ARG PIP_EXTRA_INDEX_URL
RUN pip install -c constraints.txt '.[train]'

# ---- what both images share: an account without rights, one folder to write into ----
FROM python:${PYTHON} AS base
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="pinsage" \
      org.opencontainers.image.description="Related items and home feeds from your own graph" \
      org.opencontainers.image.version="${VERSION}"
RUN groupadd --gid 10001 pinsage \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin pinsage \
    && install -d -o 10001 -g 10001 /data
# The root file system may be read-only: compiled kernels are kept under /tmp (mount a tmpfs there).
ENV PATH=/opt/pinsage/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PINSAGE_HOME=/data \
    NUMBA_CACHE_DIR=/tmp/numba
VOLUME /data
WORKDIR /data
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["pinsage"]

# ---- trains, publishes, takes reindex jobs ----
FROM base AS offline
COPY --from=offline-build /opt/pinsage /opt/pinsage
ENV MPLCONFIGDIR=/tmp/matplotlib
CMD ["worker"]

# ---- serves ----
FROM base AS service
COPY --from=service-build /opt/pinsage /opt/pinsage
# Reindexing needs the other image; threads of native code are PINSAGE_NATIVE_THREADS, up to four where nothing is set.
ENV PINSAGE_WORKER=none
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
