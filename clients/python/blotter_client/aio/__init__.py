"""The asynchronous client (asyncio). The blocking one, `blotter_client.blocking`, is generated from this folder."""
